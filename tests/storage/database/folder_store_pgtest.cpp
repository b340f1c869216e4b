#include "storage/database/folder_store.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using namespace testing;  // NOLINT: the fixtures' namespace
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class FolderStoreTest : public PostgresTest {
 protected:
  static FolderRecord model(const std::string& name) {
    FolderRecord record{.kind = "model", .name = name, .fingerprint = "f1"};
    record.model.set_name("models/" + name);
    record.model.set_parameter_count(int64_t{7} << 32);
    record.model.add_projections()->set_name("model.layers.0.self_attn.q_proj");
    return record;
  }
};

TEST_F(FolderStoreTest, RecordsReadBackInNameOrder) {
  FolderStore store(database());
  for (const char* name : {"b", "a", "B"}) ASSERT_THAT(store.put(model(name)), IsOk());
  QAAS_ASSERT_OK_AND_ASSIGN(const auto records, store.list("model"));
  ASSERT_THAT(records, SizeIs(3));
  EXPECT_EQ(records[0].name, "B");
  EXPECT_EQ(records[1].name, "a");
  EXPECT_EQ(records[1].fingerprint, "f1");
  EXPECT_EQ(records[1].sha256, "");
  EXPECT_EQ(records[1].model.SerializeAsString(), model("a").model.SerializeAsString());
}

TEST_F(FolderStoreTest, PutReplaces) {
  FolderStore store(database());
  FolderRecord record = model("a");
  ASSERT_THAT(store.put(record), IsOk());
  record.fingerprint = "f2";
  record.sha256 = "digest";
  ASSERT_THAT(store.put(record), IsOk());
  QAAS_ASSERT_OK_AND_ASSIGN(const auto records, store.list("model"));
  ASSERT_THAT(records, SizeIs(1));
  EXPECT_EQ(records[0].fingerprint, "f2");
  EXPECT_EQ(records[0].sha256, "digest");
}

TEST_F(FolderStoreTest, ModelsAndDatasetsOfOneNameAreApart) {
  FolderStore store(database());
  ASSERT_THAT(store.put(model("a")), IsOk());
  ASSERT_THAT(store.put({.kind = "dataset", .name = "a", .fingerprint = "g"}), IsOk());
  ASSERT_THAT(store.remove("model", "a"), IsOk());
  ASSERT_THAT(store.remove("model", "a"), IsOk()) << "removing twice is fine";
  QAAS_ASSERT_OK_AND_ASSIGN(const auto models, store.list("model"));
  EXPECT_THAT(models, IsEmpty());
  QAAS_ASSERT_OK_AND_ASSIGN(const auto datasets, store.list("dataset"));
  EXPECT_THAT(datasets, SizeIs(1));
}

TEST_F(FolderStoreTest, OtherKindsAreRefused) {
  FolderStore store(database());
  EXPECT_THAT(store.put({.kind = "tokenizer", .name = "a"}),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("folder_kind_check")));
}

}  // namespace
}  // namespace qaas
