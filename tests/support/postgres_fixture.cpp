#include "tests/support/postgres_fixture.h"

#include <cstdlib>
#include <stdexcept>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>

#include "storage/database/connection_string.h"
#include "storage/database/job_row.h"
#include "tests/support/status_matchers.h"

namespace qaas::testing {
namespace {

const char* test_dsn() {
  const char* dsn = std::getenv("QAAS_TEST_DSN");
  if (dsn == nullptr) {
    throw std::runtime_error(
        "QAAS_TEST_DSN is not set: run this test through tests/support/with_postgres.sh");
  }
  return dsn;
}

void execute_on(const std::string& dsn, const std::string& sql) {
  pqxx::connection connection(dsn);
  pqxx::work work(connection);
  work.exec(sql);
  work.commit();
}

}  // namespace

TestSchema::TestSchema()
    : name_(absl::StrCat("qaas_test_", absl::StrReplaceAll(random_uuid(), {{"-", "_"}}))) {
  execute_on(test_dsn(), absl::StrCat("CREATE SCHEMA ", name_));
  dsn_ = with_server_setting(test_dsn(), "search_path", name_).value();
}

TestSchema::~TestSchema() {
  execute_on(test_dsn(),
             absl::StrCat("SET client_min_messages = warning; DROP SCHEMA ", name_, " CASCADE"));
}

void PostgresTest::SetUp() {
  schema_ = std::make_unique<TestSchema>();
  database_ = std::make_unique<Database>(DatabaseOptions{.dsn = dsn()});
  ASSERT_THAT(migrate(*database_), IsOk());
}

pqxx::result PostgresTest::execute(const std::string& sql) {
  pqxx::connection connection(dsn());
  pqxx::work work(connection);
  pqxx::result result = work.exec(sql);
  work.commit();
  return result;
}

void PostgresTest::expire_leases() {
  execute("UPDATE job_lease SET leased_until = clock_timestamp() - interval '1 second'");
}

}  // namespace qaas::testing
