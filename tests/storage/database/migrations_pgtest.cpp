#include <atomic>
#include <thread>
#include <vector>

#include <absl/strings/str_cat.h>

#include "storage/database/migrations.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using namespace testing;  // NOLINT: the fixtures' namespace
using ::testing::AllOf;
using ::testing::HasSubstr;

int tables_in(const std::string& dsn) {
  pqxx::connection connection(dsn);
  pqxx::work work(connection);
  return work.exec("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()")[0][0]
      .as<int>();
}

TEST_F(PostgresTest, MigratingAgainChangesNothing) {
  const int tables = tables_in(dsn());
  ASSERT_THAT(migrate(database()), IsOk());
  EXPECT_EQ(tables_in(dsn()), tables);
  EXPECT_EQ(execute("SELECT count(*) FROM schema_version")[0][0].as<int>(), schema_version());
  EXPECT_THAT(check_schema(database()), IsOk());
}

TEST_F(PostgresTest, NewerSchemaIsRefused) {
  execute(absl::StrCat("INSERT INTO schema_version (number, name) VALUES (", schema_version() + 1,
                       ", 'from_the_future')"));
  const auto refused = StatusIs(
      absl::StatusCode::kFailedPrecondition,
      AllOf(HasSubstr(absl::StrCat("version ", schema_version() + 1)), HasSubstr("newer release")));
  EXPECT_THAT(check_schema(database()), refused);
  EXPECT_THAT(migrate(database()), refused);
}

TEST(Migrations, EmptySchemaIsRefusedWithTheCommandToRun) {
  const TestSchema schema;
  Database database({.dsn = schema.dsn()});
  EXPECT_THAT(check_schema(database),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("version 0"), HasSubstr("qaas-server migrate"))));
}

TEST(Migrations, ProcessesMayMigrateAtTheSameTime) {
  const TestSchema schema;
  std::vector<std::thread> threads;
  std::vector<absl::Status> results(4);
  for (absl::Status& result : results) {
    threads.emplace_back([&] {
      Database database({.dsn = schema.dsn()});
      result = migrate(database);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& result : results) EXPECT_THAT(result, IsOk());
  Database database({.dsn = schema.dsn()});
  EXPECT_THAT(check_schema(database), IsOk());
}

TEST(Migrations, AreNumberedFromOneWithoutGaps) {
  for (size_t i = 0; i < migrations().size(); ++i) {
    EXPECT_EQ(migrations()[i].number, static_cast<int>(i) + 1);
    EXPECT_FALSE(migrations()[i].sql.empty());
  }
}

}  // namespace
}  // namespace qaas
