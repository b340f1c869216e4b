#include "workers/engine/data/dataset_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_folder.h"

namespace qaas {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::StatusIs;
using testing::TemporaryFolder;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(DatasetSource, IsWhatTheFolderDeclares) {
  TemporaryFolder folder;
  folder.write("dataset.json", R"({"source": "King James Bible", "licence": "public domain"})");
  QAAS_ASSERT_OK_AND_ASSIGN(const std::string source, dataset_source(folder.path()));
  EXPECT_EQ(source, "King James Bible");
}

TEST(DatasetSource, IsEmptyWhereNothingIsDeclared) {
  TemporaryFolder folder;
  QAAS_ASSERT_OK_AND_ASSIGN(const std::string none, dataset_source(folder.path()));
  EXPECT_EQ(none, "");
  const auto text = folder.write("text.txt", "words");
  QAAS_ASSERT_OK_AND_ASSIGN(const std::string file, dataset_source(text));
  EXPECT_EQ(file, "");
}

TEST(DatasetSource, RefusesADeclarationItCannotRead) {
  TemporaryFolder folder;
  folder.write("dataset.json", "[1, 2");
  EXPECT_THAT(dataset_source(folder.path()),
              StatusIs(kInvalid, AllOf(HasSubstr("dataset.json"), HasSubstr("JSON object"))));
  folder.write("dataset.json", R"({"source": 7})");
  EXPECT_THAT(dataset_source(folder.path()), StatusIs(kInvalid, HasSubstr("'source'")));
}

}  // namespace
}  // namespace qaas
