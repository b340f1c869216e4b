#include "storage/checkpoint/safetensors.h"

#include <cstring>
#include <fstream>
#include <numeric>
#include <random>
#include <sys/stat.h>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace qaas {
namespace {

using ::qaas::testing::IsOk;
using ::qaas::testing::read_file;
using ::qaas::testing::StatusIs;
using ::qaas::testing::TemporaryFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
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

std::string with_length(uint64_t length, const std::string& rest) {
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + rest;
}

absl::StatusOr<SafetensorsFile> open_bytes(const std::string& bytes) {
  const TemporaryFolder folder;
  return SafetensorsFile::open(folder.write("model.safetensors", bytes));
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string text_of(const TensorView& view) {
  return {reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size()};
}

const std::string kTwoTensors = R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                                R"("b":{"dtype":"F16","shape":[1,2],"data_offsets":[2,6]}})";

TEST(Safetensors, ReadsTensorsAndMetadata) {
  QAAS_ASSERT_OK_AND_ASSIGN(
      const auto file,
      open_bytes(file_of(R"({"__metadata__":{"format":"pt"},)" + kTwoTensors.substr(1), "12wxyz")));
  ASSERT_EQ(file.tensors().size(), 2);
  EXPECT_EQ(text_of(file.tensors().at("a")), "12");
  const TensorView& b = file.tensors().at("b");
  EXPECT_EQ(b.dtype, Dtype::kF16);
  EXPECT_THAT(b.shape, ElementsAre(1, 2));
  EXPECT_EQ(text_of(b), "wxyz");
  EXPECT_EQ(file.metadata().at("format"), "pt");
}

TEST(Safetensors, AcceptsWhatTheFormatAllows) {
  // Blanks after the header, tensors listed out of offset order, a scalar, an empty tensor, fields
  // it does not know, no tensors at all.
  EXPECT_THAT(open_bytes(file_of(kTwoTensors + "     ", "123456")), IsOk());
  EXPECT_THAT(open_bytes(file_of(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},)"
                                 R"("a":{"dtype":"U8","shape":[],"data_offsets":[0,1]},)"
                                 R"("c":{"dtype":"F64","shape":[3,0],"data_offsets":[1,1],"x":1}})",
                                 "12")),
              IsOk());
  EXPECT_THAT(open_bytes(file_of("{}", "")), IsOk());
}

TEST(Safetensors, RefusesAMissingFileAsNotFound) {
  const TemporaryFolder folder;
  EXPECT_THAT(SafetensorsFile::open(folder / "none"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
}

TEST(Safetensors, RefusesWhatIsNotARegularFile) {
  const TemporaryFolder folder;
  EXPECT_THAT(SafetensorsFile::open(folder.path()), StatusIs(kInvalid, HasSubstr("regular file")));
  ASSERT_EQ(mkfifo((folder / "fifo").c_str(), 0600), 0);
  EXPECT_THAT(SafetensorsFile::open(folder / "fifo"), StatusIs(kInvalid, HasSubstr("regular")));
}

struct Malformed {
  const char* claim;
  std::string bytes;
  const char* message;
};

TEST(Safetensors, RefusesEveryMalformedFileWithItsReason) {
  const auto one = [](const std::string& entry, const std::string& area) {
    return file_of("{\"t\":" + entry + "}", area);
  };
  const std::string metadata_head = R"({"__metadata__":)";
  const std::vector<Malformed> cases = {
      {"empty file", "", "at least 8"},
      {"seven bytes", "1234567", "at least 8"},
      {"header beyond the limit", with_length(100'000'001, "{}"), "beyond the limit"},
      {"header length of 2^64-1", with_length(~uint64_t{0}, "{}"), "beyond the limit"},
      {"header past the end", with_length(3, "{}"), "past the end"},
      {"no header", with_length(0, ""), "begin with '{'"},
      {"blank before the header", file_of(" {}", ""), "begin with '{'"},
      {"header is an array", file_of("[]", ""), "begin with '{'"},
      {"newline after the header", file_of("{}\n", ""), "end with '}'"},
      {"zero byte after the header", file_of(std::string("{}\0", 3), ""), "end with '}'"},
      {"zero byte inside the header", file_of(std::string("{}\0}", 4), ""), "zero byte"},
      {"header is not JSON", file_of("{\"a\":}", ""), "not valid JSON"},
      {"header is not UTF-8", file_of("{\"\x80\":{}}", ""), "not valid JSON"},
      {"nested too deep", file_of("{\"a\":[[[[[1]]]]]}", ""), "deeper"},
      {"duplicate tensor",
       file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
               R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
               "1"),
       "'a' occurs twice"},
      {"duplicate field",
       one(R"({"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]})", "1"),
       "'dtype' occurs twice"},
      {"metadata is no object", file_of(metadata_head + "3}", ""), "not an object"},
      {"metadata holds an integer", file_of(metadata_head + R"({"k":3}})", ""), "not a string"},
      {"tensor is no object", one("3", ""), "expected an object"},
      {"no dtype", one(R"({"shape":[1],"data_offsets":[0,1]})", "1"), "no 'dtype'"},
      {"no shape", one(R"({"dtype":"U8","data_offsets":[0,1]})", "1"), "no 'shape'"},
      {"no offsets", one(R"({"dtype":"U8","shape":[1]})", "1"), "no 'data_offsets'"},
      {"unknown dtype", one(R"({"dtype":"Q4","shape":[1],"data_offsets":[0,1]})", "1"), "'Q4'"},
      {"lower-case dtype", one(R"({"dtype":"u8","shape":[1],"data_offsets":[0,1]})", "1"), "'u8'"},
      {"dtype is a number", one(R"({"dtype":8,"shape":[1],"data_offsets":[0,1]})", "1"),
       "number 8"},
      {"shape is a number", one(R"({"dtype":"U8","shape":1,"data_offsets":[0,1]})", "1"),
       "not an array"},
      {"negative dimension", one(R"({"dtype":"U8","shape":[-1],"data_offsets":[0,1]})", "1"),
       "number -1"},
      {"minus zero", one(R"({"dtype":"U8","shape":[-0],"data_offsets":[0,0]})", ""), "integers"},
      {"fractional dimension", one(R"({"dtype":"U8","shape":[1.0],"data_offsets":[0,1]})", "1"),
       "number 1.0"},
      {"exponent", one(R"({"dtype":"U8","shape":[1e0],"data_offsets":[0,1]})", "1"), "integers"},
      {"dimension of 2^63",
       one(R"({"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1]})", "1"), "2^63-1"},
      {"dimension of 2^64",
       one(R"({"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]})", "1"), "2^63-1"},
      {"shape overflows",
       one(R"({"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]})", ""), "2^63"},
      {"shape overflows before a zero",
       one(R"({"dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0]})", ""), "2^63"},
      {"element size overflows",
       one(R"({"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]})", ""), "2^63"},
      {"nine dimensions",
       one(R"({"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]})", "1"),
       "9 dimensions"},
      {"one offset", one(R"({"dtype":"U8","shape":[1],"data_offsets":[0]})", "1"), "two integers"},
      {"three offsets", one(R"({"dtype":"U8","shape":[1],"data_offsets":[0,1,1]})", "1"),
       "two integers"},
      {"negative offset", one(R"({"dtype":"U8","shape":[1],"data_offsets":[-1,0]})", "1"),
       "two integers"},
      {"begin after end", one(R"({"dtype":"U8","shape":[1],"data_offsets":[1,0]})", "1"),
       "after their end"},
      {"size differs from the shape",
       one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,2]})", "12"),
       "need 4 bytes, data_offsets span 2"},
      {"does not start at 0", one(R"({"dtype":"U8","shape":[1],"data_offsets":[1,2]})", "12"),
       "a hole"},
      {"hole",
       file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
               R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
               "123"),
       "a hole"},
      {"overlap",
       file_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
               R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
               "123"),
       "an overlap"},
      {"two tensors in one place",
       file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
               R"("b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
               "1"),
       "an overlap"},
      {"trailing byte", file_of(kTwoTensors, "1234567"), "trailing bytes"},
      {"trailing byte without tensors", file_of("{}", "1"), "trailing bytes"},
      {"short file", file_of(kTwoTensors, "12345"), "truncated"},
      {"offset past the end", one(R"({"dtype":"U8","shape":[9],"data_offsets":[0,9]})", "1"),
       "truncated"},
      {"empty name", file_of(R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "1"),
       "tensor name"},
      {"control character in a name",
       file_of(R"({"a\nb":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "1"), "tensor name"},
      {"name of 1025 bytes",
       file_of(
           "{\"" + std::string(1025, 'a') + R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
           "1"),
       "1025 bytes"},
  };
  for (const Malformed& malformed : cases) {
    EXPECT_THAT(
        open_bytes(malformed.bytes),
        StatusIs(kInvalid, AllOf(HasSubstr("model.safetensors: "), HasSubstr(malformed.message))))
        << malformed.claim;
  }
}

TEST(Safetensors, RefusesEveryTruncatedPrefix) {
  const TemporaryFolder folder;
  const std::string small = "12345678";
  ASSERT_THAT(write_safetensors(folder / "whole",
                                {{"weight", Dtype::kF32, {2}, bytes_of(small)},
                                 {"bias", Dtype::kU8, {8}, bytes_of(small)}},
                                {{"note", "tiny"}}),
              IsOk());
  const std::string whole = read_file(folder / "whole");
  ASSERT_THAT(open_bytes(whole), IsOk());
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(open_bytes(whole.substr(0, size)), StatusIs(kInvalid, HasSubstr(":"))) << size;
  }
}

TEST(Safetensors, SurvivesEveryChangedByte) {
  const std::string whole = file_of(kTwoTensors + "  ", "123456");
  std::mt19937 generator(7);
  for (size_t position = 0; position < whole.size(); ++position) {
    for (int round = 0; round < 8; ++round) {
      std::string changed = whole;
      changed[position] = static_cast<char>(generator());
      const auto file = open_bytes(changed);
      if (!file.ok()) {
        EXPECT_EQ(file.status().code(), kInvalid) << file.status();
        continue;
      }
      int64_t bytes = 0;
      for (const auto& [name, view] : file->tensors()) {
        EXPECT_EQ(static_cast<int64_t>(view.bytes.size()),
                  std::accumulate(view.shape.begin(), view.shape.end(), dtype_size(view.dtype),
                                  std::multiplies<>()));
        bytes += static_cast<int64_t>(view.bytes.size());
      }
      EXPECT_EQ(bytes, 6);
    }
  }
}

TEST(Safetensors, NoticesAFileThatChangedAfterItWasOpened) {
  const TemporaryFolder folder;
  const auto path = folder.write("f", file_of(kTwoTensors, "123456"));
  QAAS_ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::open(path));
  EXPECT_THAT(file.check_unchanged(), IsOk());
  std::filesystem::resize_file(path, 20);
  EXPECT_THAT(file.check_unchanged(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("changed")));
}

TEST(Safetensors, NoticesAFileThatWasReplacedAfterItWasOpened) {
  const TemporaryFolder folder;
  const auto path = folder.write("f", file_of(kTwoTensors, "123456"));
  QAAS_ASSERT_OK_AND_ASSIGN(const auto file, SafetensorsFile::open(path));
  std::filesystem::rename(folder.write("g", file_of(kTwoTensors, "123456")), path);
  EXPECT_THAT(file.check_unchanged(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("changed")));
  EXPECT_EQ(text_of(file.tensors().at("a")), "12");
}

TEST(Dtype, NamesAndSizesAreThoseOfTheFormat) {
  const std::map<std::string, int64_t> sizes = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"I16", 2}, {"U16", 2}, {"F16", 2}, {"BF16", 2},
      {"I32", 4},  {"U32", 4}, {"F32", 4}, {"F64", 8}, {"I64", 8}, {"U64", 8}};
  for (const auto& [name, size] : sizes) {
    const auto dtype = dtype_from_name(name);
    ASSERT_TRUE(dtype.has_value()) << name;
    EXPECT_EQ(dtype_name(*dtype), name);
    EXPECT_EQ(dtype_size(*dtype), size) << name;
  }
  EXPECT_FALSE(dtype_from_name("F8_E4M3").has_value());
}

}  // namespace
}  // namespace qaas
