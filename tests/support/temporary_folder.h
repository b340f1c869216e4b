#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace qaas::testing {

/// A folder of its own for one test, removed with everything in it.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "qaas_test.XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) {
      ADD_FAILURE() << "cannot create " << pattern;
      std::abort();
    }
    path_ = pattern;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

  /// Writes a file with these bytes and returns its path.
  std::filesystem::path write(std::string_view name, std::string_view bytes) const {
    const std::filesystem::path path = path_ / name;
    std::ofstream file(path, std::ios::binary);
    file << bytes;
    file.close();
    EXPECT_TRUE(file) << "cannot write " << path;
    return path;
  }

 private:
  std::filesystem::path path_;
};

/// The whole of a file.
inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << "cannot read " << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Where material beyond the repository lies: QAAS_SHARED, else ../shared beside the source.
inline std::filesystem::path shared_folder() {
  if (const char* shared = std::getenv("QAAS_SHARED")) return shared;
  const char* source = std::getenv("QAAS_SOURCE_DIR");
  return std::filesystem::path(source == nullptr ? "." : source) / ".." / "shared";
}

/// The repository.
inline std::filesystem::path source_folder() {
  const char* source = std::getenv("QAAS_SOURCE_DIR");
  return source == nullptr ? "." : source;
}

}  // namespace qaas::testing
