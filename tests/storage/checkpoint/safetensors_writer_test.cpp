#include <csignal>
#include <random>
#include <sys/resource.h>

#include "storage/checkpoint/safetensors.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace qaas {
namespace {

using ::qaas::testing::IsOk;
using ::qaas::testing::read_file;
using ::qaas::testing::StatusIs;
using ::qaas::testing::TemporaryFolder;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

/// A file of this header (its true length in front) and this data area.
std::string file_of(const std::string& header, const std::string& area) {
  std::string file;
  for (int shift = 0; shift < 64; shift += 8) {
    file.push_back(static_cast<char>(static_cast<uint64_t>(header.size()) >> shift & 0xFF));
  }
  return file + header + area;
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string text_of(const TensorView& view) {
  return {reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size()};
}

TEST(SafetensorsWriter, WritesTheGoldenBytes) {
  const TemporaryFolder folder;
  const std::string one = "1";
  const std::string two = "23";
  const std::string four = "4567";
  ASSERT_THAT(write_safetensors(folder / "f",
                                {{"z", Dtype::kU8, {1}, bytes_of(one)},
                                 {"b", Dtype::kBf16, {1, 1}, bytes_of(two)},
                                 {"a", Dtype::kF16, {1}, bytes_of(two)},
                                 {"y", Dtype::kF32, {}, bytes_of(four)},
                                 {"c", Dtype::kF16, {0, 5}, {}}},
                                {{"tool", "qaas"}}),
              IsOk());
  std::string header = R"({"__metadata__":{"format":"pt","tool":"qaas"},)"
                       R"("y":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                       R"("b":{"dtype":"BF16","shape":[1,1],"data_offsets":[4,6]},)"
                       R"("a":{"dtype":"F16","shape":[1],"data_offsets":[6,8]},)"
                       R"("c":{"dtype":"F16","shape":[0,5],"data_offsets":[8,8]},)"
                       R"("z":{"dtype":"U8","shape":[1],"data_offsets":[8,9]}})";
  header.append((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(read_file(folder / "f"), file_of(header, "456723231"));
}

TEST(SafetensorsWriter, WritesTheSameBytesWhateverTheOrderOfItsInput) {
  const TemporaryFolder folder;
  const std::string text = "12345678";
  std::vector<TensorToWrite> tensors = {{"a", Dtype::kF32, {2}, bytes_of(text)},
                                        {"b", Dtype::kI64, {1}, bytes_of(text)},
                                        {"c", Dtype::kI64, {1}, bytes_of(text)}};
  ASSERT_THAT(write_safetensors(folder / "1", tensors), IsOk());
  std::reverse(tensors.begin(), tensors.end());
  ASSERT_THAT(write_safetensors(folder / "2", tensors), IsOk());
  EXPECT_EQ(read_file(folder / "1"), read_file(folder / "2"));
}

TEST(SafetensorsWriter, ReadsBackWhatItWrites) {
  const TemporaryFolder folder;
  std::mt19937_64 generator(11);
  const std::vector<Dtype> dtypes = {
      Dtype::kBool, Dtype::kU8,  Dtype::kI8,  Dtype::kI16, Dtype::kU16, Dtype::kF16, Dtype::kBf16,
      Dtype::kI32,  Dtype::kU32, Dtype::kF32, Dtype::kF64, Dtype::kI64, Dtype::kU64};
  std::vector<std::string> storage;
  for (int i = 0; i < 100; ++i) {
    std::string bytes(static_cast<size_t>(dtype_size(dtypes[i % dtypes.size()]) * (i % 5) * 3), 0);
    for (char& byte : bytes) byte = static_cast<char>(generator());
    storage.push_back(bytes);
  }
  std::vector<TensorToWrite> tensors;
  for (int i = 0; i < 100; ++i) {
    tensors.push_back({"layer." + std::to_string(i),
                       dtypes[i % dtypes.size()],
                       {i % 5, 3},
                       bytes_of(storage[i])});
  }
  ASSERT_THAT(write_safetensors(folder / "f", tensors, {{"quoted \"ключ\"", "line\nline"}}),
              IsOk());
  QAAS_ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::open(folder / "f"));
  ASSERT_EQ(file.tensors().size(), tensors.size());
  for (int i = 0; i < 100; ++i) {
    const TensorView& view = file.tensors().at(tensors[i].name);
    EXPECT_EQ(view.dtype, tensors[i].dtype);
    EXPECT_EQ(view.shape, tensors[i].shape);
    EXPECT_EQ(text_of(view), storage[i]);
  }
  EXPECT_EQ(file.metadata().at("quoted \"ключ\""), "line\nline");
}

TEST(SafetensorsWriter, AlignsEveryTensorItWrites) {
  const TemporaryFolder folder;
  const std::string text(24, 'x');
  ASSERT_THAT(write_safetensors(folder / "f", {{"odd", Dtype::kU8, {3}, bytes_of(text).first(3)},
                                               {"half", Dtype::kF16, {1}, bytes_of(text).first(2)},
                                               {"word", Dtype::kI32, {1}, bytes_of(text).first(4)},
                                               {"long", Dtype::kI64, {3}, bytes_of(text)}}),
              IsOk());
  QAAS_ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::open(folder / "f"));
  for (const auto& [name, view] : file.tensors()) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view.bytes.data()) % dtype_size(view.dtype), 0) << name;
  }
}

TEST(SafetensorsWriter, RefusesInputNoReaderWouldTake) {
  const TemporaryFolder folder;
  const std::string text = "1234";
  const auto write = [&](std::vector<TensorToWrite> tensors,
                         std::map<std::string, std::string> metadata = {}) {
    return write_safetensors(folder / "f", std::move(tensors), metadata);
  };
  EXPECT_THAT(write({{"a", Dtype::kF32, {2}, bytes_of(text)}}),
              StatusIs(kInvalid, HasSubstr("need 8 bytes, got 4")));
  EXPECT_THAT(write({{"a", Dtype::kF32, {-1}, bytes_of(text)}}),
              StatusIs(kInvalid, HasSubstr("negative")));
  EXPECT_THAT(
      write({{"a", Dtype::kF32, {1}, bytes_of(text)}, {"a", Dtype::kI32, {1}, bytes_of(text)}}),
      StatusIs(kInvalid, HasSubstr("'a' is given twice")));
  EXPECT_THAT(write({{"__metadata__", Dtype::kF32, {1}, bytes_of(text)}}),
              StatusIs(kInvalid, HasSubstr("tensor name")));
  EXPECT_THAT(write({}, {{"k", "\x80"}}), StatusIs(kInvalid, HasSubstr("UTF-8")));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(SafetensorsWriter, LeavesTheOldFileWholeAndNothingElseWhenItFails) {
  const TemporaryFolder folder;
  const std::string large(100'000, 'x');
  const auto path = folder.write("f", "old");
  // A limit on file sizes fails the write half-way, as a full disk does.
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 10'000, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto status = write_safetensors(path, {{"a", Dtype::kU8, {100'000}, bytes_of(large)}});
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(SafetensorsWriter, NamesAFolderThatIsMissing) {
  const TemporaryFolder folder;
  EXPECT_THAT(write_safetensors(folder / "missing" / "f", {}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("missing")));
}

}  // namespace
}  // namespace qaas
