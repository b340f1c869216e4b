#include "clients/cli/names.h"

#include <algorithm>
#include <array>
#include <random>

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

namespace qaas::cli {

std::string with_collection(const std::string& collection, const std::string& name) {
  if (name.empty() || absl::StartsWith(name, collection + "/")) return name;
  return absl::StrCat(collection, "/", name);
}

std::string last_segment(const std::string& name) {
  const size_t slash = name.rfind('/');
  return slash == std::string::npos ? name : name.substr(slash + 1);
}

bool is_plain_file_name(const std::string& name) {
  constexpr size_t kLongest = 200;  // file systems allow 255, and a suffix is added
  if (name.empty() || name.size() > kLongest || name[0] == '.') return false;
  return std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return c >= 0x20 && c != 0x7F && c != '/' && c != '\\';
  });
}

std::string random_uuid() {
  std::random_device source;
  std::array<uint32_t, 4> bits = {source(), source(), source(), source()};
  bits[1] = (bits[1] & 0xFFFF0FFFu) | 0x4000u;      // version 4
  bits[2] = (bits[2] & 0x3FFFFFFFu) | 0x80000000u;  // variant 1
  return absl::StrFormat("%08x-%04x-%04x-%04x-%04x%08x", bits[0], bits[1] >> 16, bits[1] & 0xFFFFu,
                         bits[2] >> 16, bits[2] & 0xFFFFu, bits[3]);
}

}  // namespace qaas::cli
