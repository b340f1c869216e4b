#include "storage/database/connection_string.h"

#include <cstdlib>
#include <string>

#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using namespace testing;  // NOLINT: the matchers' namespace
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::chrono::milliseconds kLimit{15000};

TEST(ConnectionString, AddsEveryTimeoutThatIsMissing) {
  QAAS_ASSERT_OK_AND_ASSIGN(const std::string dsn, with_timeouts("host=db dbname=q", kLimit));
  EXPECT_THAT(
      dsn, AllOf(HasSubstr("host='db'"), HasSubstr("dbname='q'"), HasSubstr("connect_timeout='5'"),
                 HasSubstr("keepalives='1'"), HasSubstr("tcp_user_timeout='20000'"),
                 HasSubstr("-c statement_timeout=15000"),
                 HasSubstr("-c idle_in_transaction_session_timeout=15000"),
                 HasSubstr("fallback_application_name='qaas'")));
}

TEST(ConnectionString, KeepsWhatIsGiven) {
  QAAS_ASSERT_OK_AND_ASSIGN(
      const std::string dsn,
      with_timeouts("connect_timeout=9 application_name=mine options='-csearch_path=a'", kLimit));
  EXPECT_THAT(dsn, AllOf(HasSubstr("connect_timeout='9'"), Not(HasSubstr("connect_timeout='5'")),
                         HasSubstr("application_name='mine'")));
  EXPECT_THAT(dsn, HasSubstr("statement_timeout=15000 -csearch_path=a'"))
      << "its own options come last, so that they win";
}

TEST(ConnectionString, TakesUris) {
  QAAS_ASSERT_OK_AND_ASSIGN(
      const std::string dsn,
      with_timeouts("postgresql://u:p%27w%5C@h:5433/d?options=-csearch_path%3Da", kLimit));
  EXPECT_THAT(dsn, AllOf(HasSubstr("host='h'"), HasSubstr("port='5433'"), HasSubstr("user='u'"),
                         HasSubstr(R"(password='p\'w\\')"), HasSubstr(" -csearch_path=a'")));
}

TEST(ConnectionString, ServerSettingsSurviveTimeouts) {
  QAAS_ASSERT_OK_AND_ASSIGN(const std::string with_path,
                            with_server_setting("host=db", "search_path", "a b"));
  QAAS_ASSERT_OK_AND_ASSIGN(const std::string dsn, with_timeouts(with_path, kLimit));
  EXPECT_THAT(dsn, HasSubstr(R"(-c search_path=a\\ b')"));
}

TEST(ConnectionString, KeepsOptionsOfTheEnvironment) {
  setenv("PGOPTIONS", "-csearch_path=from_environment", 1);
  const auto dsn = with_timeouts("host=db", kLimit);
  unsetenv("PGOPTIONS");
  ASSERT_THAT(dsn, IsOk());
  EXPECT_THAT(*dsn, HasSubstr(" -csearch_path=from_environment'"));
}

TEST(ConnectionString, RefusalDoesNotRepeatThePassword) {
  EXPECT_THAT(with_timeouts("host=db password=secret nonsense", kLimit),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("keyword=value"), Not(HasSubstr("secret")),
                             Not(HasSubstr("nonsense")))));
}

}  // namespace
}  // namespace qaas
