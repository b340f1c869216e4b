#include <atomic>
#include <barrier>
#include <thread>
#include <vector>

#include <absl/strings/str_cat.h>

#include "storage/database/connection_string.h"
#include "storage/database/database.h"
#include "tests/support/postgres_fixture.h"
#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using namespace testing;  // NOLINT: the fixtures' namespace
using std::chrono::milliseconds;
using ::testing::_;
using ::testing::AllOf;
using ::testing::HasSubstr;

class DatabaseTest : public PostgresTest {
 protected:
  void SetUp() override {
    PostgresTest::SetUp();
    execute("CREATE TABLE note (id integer PRIMARY KEY, text text)");
    execute("INSERT INTO note VALUES (1, 'one'), (2, 'two')");
  }

  static absl::Status select_one(Database& database) {
    return database.transact([](pqxx::work& work) {
      work.exec("SELECT 1");
      return absl::OkStatus();
    });
  }

  void kill(int backend) {
    execute(absl::StrCat("SELECT pg_terminate_backend(", backend, ", 10000)"));
  }

  int notes() { return execute("SELECT count(*) FROM note")[0][0].as<int>(); }

  // The first commit that adds a note ends its own connection instead. A sequence remembers it:
  // what a lost transaction drew from it stays drawn.
  void lose_first_commit() {
    execute(R"sql(
      CREATE SEQUENCE commits;
      CREATE FUNCTION lose_first() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF nextval('commits') = 1 THEN
          PERFORM pg_terminate_backend(pg_backend_pid());
          PERFORM pg_sleep(60);
        END IF;
        RETURN NULL;
      END $$;
      CREATE CONSTRAINT TRIGGER lose_first AFTER INSERT ON note
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION lose_first())sql");
  }
};

int backend_of(pqxx::work& work) { return work.exec("SELECT pg_backend_pid()")[0][0].as<int>(); }

absl::Status add_note(pqxx::work& work) {
  work.exec("INSERT INTO note VALUES (3, 'three')");
  return absl::OkStatus();
}

TEST_F(DatabaseTest, ErrorOfTheBodyRollsBack) {
  const absl::Status status = database().transact([](pqxx::work& work) {
    add_note(work).IgnoreError();
    return absl::OutOfRangeError("the body's own");
  });
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kOutOfRange, "the body's own"));
  EXPECT_EQ(notes(), 2);
}

TEST_F(DatabaseTest, DeadlockIsRetried) {
  QAAS_ASSERT_OK_AND_ASSIGN(const std::string quick,
                            with_server_setting(dsn(), "deadlock_timeout", "10ms"));
  Database database({.dsn = quick});
  std::barrier<> both_hold_one(2);
  std::atomic<int> runs = 0;
  const auto lock_both = [&](int first, int second) {
    bool again = false;
    return database.transact([&](pqxx::work& work) {
      ++runs;
      work.exec(absl::StrCat("UPDATE note SET text = text || '+' WHERE id = ", first));
      if (!again) both_hold_one.arrive_and_wait();
      again = true;
      work.exec(absl::StrCat("UPDATE note SET text = text || '+' WHERE id = ", second));
      return absl::OkStatus();
    });
  };
  absl::Status one;
  std::thread thread([&] { one = lock_both(1, 2); });
  const absl::Status two = lock_both(2, 1);
  thread.join();
  EXPECT_THAT(one, IsOk());
  EXPECT_THAT(two, IsOk());
  EXPECT_GT(runs, 2) << "PostgreSQL must have broken a deadlock";
  EXPECT_EQ(execute("SELECT text FROM note WHERE id = 1")[0][0].as<std::string>(), "one++");
}

TEST_F(DatabaseTest, BackendKilledInATransactionIsUnavailableThenRecovers) {
  const absl::Status status = database().transact([&](pqxx::work& work) {
    kill(backend_of(work));
    return add_note(work);
  });
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable, _));
  EXPECT_THAT(database().transact(add_note), IsOk());
  EXPECT_EQ(notes(), 3);
}

TEST_F(DatabaseTest, BackendsKilledWhileIdleGoUnnoticed) {
  std::atomic<int> first = 0;
  std::atomic<int> second = 0;
  ASSERT_THAT(database().transact([&](pqxx::work& work) {
    first = backend_of(work);
    return database().transact([&](pqxx::work& inner) {
      second = backend_of(inner);
      return absl::OkStatus();
    });
  }),
              IsOk());
  kill(first);
  kill(second);
  EXPECT_THAT(select_one(database()), IsOk());
}

TEST_F(DatabaseTest, ReplacedConnectionsKeepTheSettings) {
  const auto search_path = [&] {
    std::string path;
    EXPECT_THAT(database().transact([&](pqxx::work& work) {
      path = work.exec("SHOW search_path")[0][0].c_str();
      return absl::OkStatus();
    }),
                IsOk());
    return path;
  };
  const std::string before = search_path();
  EXPECT_THAT(before, HasSubstr("qaas_test_"));
  database()
      .transact([&](pqxx::work& work) {
        kill(backend_of(work));
        return add_note(work);
      })
      .IgnoreError();
  EXPECT_EQ(search_path(), before);
}

TEST_F(DatabaseTest, ExhaustedPoolIsResourceExhaustedThenRecovers) {
  Database database({.dsn = dsn(), .pool_size = 1, .acquire_timeout = milliseconds{20}});
  absl::Status inner;
  ASSERT_THAT(database.transact([&](pqxx::work&) {
    inner = select_one(database);
    return absl::OkStatus();
  }),
              IsOk());
  EXPECT_THAT(inner, StatusIs(absl::StatusCode::kResourceExhausted,
                              HasSubstr("none of 1 connections came free within 20 ms")));
  EXPECT_THAT(select_one(database), IsOk());
}

TEST_F(DatabaseTest, FailedTransactionsReturnTheirPlaceInThePool) {
  Database database({.dsn = dsn(), .pool_size = 1, .acquire_timeout = milliseconds{20}});
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(database.transact([](pqxx::work& work) {
      work.exec("SELECT nonsense");
      return absl::OkStatus();
    }),
                StatusIs(absl::StatusCode::kInternal, HasSubstr("nonsense")));
    EXPECT_THAT(database.transact([](pqxx::work&) { return absl::AbortedError(""); }),
                StatusIs(absl::StatusCode::kAborted, _));
  }
  EXPECT_THAT(select_one(database), IsOk());
}

TEST_F(DatabaseTest, WaitersShareTheConnections) {
  Database database({.dsn = dsn(), .pool_size = 2});
  std::atomic<int> inside = 0;
  std::atomic<int> most = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 10; ++j) {
        EXPECT_THAT(database.transact([&](pqxx::work& work) {
          const int now = ++inside;
          for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
          }
          work.exec("SELECT 1");
          --inside;
          return absl::OkStatus();
        }),
                    IsOk());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most, 2);
}

TEST_F(DatabaseTest, SlowStatementIsUnavailable) {
  Database database({.dsn = dsn(), .statement_timeout = milliseconds{20}});
  EXPECT_THAT(database.transact([](pqxx::work& work) {
    work.exec("SELECT pg_sleep(60)");
    return absl::OkStatus();
  }),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("statement timeout")));
}

TEST_F(DatabaseTest, ValueThatCannotBeStoredIsTheCallersFault) {
  EXPECT_THAT(database().transact([](pqxx::work& work) {
    work.exec(R"(SELECT '"\u0000"'::jsonb)");
    return absl::OkStatus();
  }),
              StatusIs(absl::StatusCode::kInvalidArgument, _));
}

TEST_F(DatabaseTest, LostCommitIsInDoubt) {
  lose_first_commit();
  EXPECT_THAT(database().transact(add_note),
              StatusIs(absl::StatusCode::kUnknown, HasSubstr("in doubt")));
}

TEST_F(DatabaseTest, LostCommitIsRunAgainForABodyThatAllowsIt) {
  lose_first_commit();
  EXPECT_THAT(database().transact_again_if_in_doubt(add_note), IsOk());
  EXPECT_EQ(notes(), 3);
}

TEST(Database, ServerThatIsNotThereIsUnavailable) {
  Database database({.dsn = "host=/nonexistent dbname=q user=u"});
  EXPECT_THAT(database.transact([](pqxx::work&) { return absl::OkStatus(); }),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("/nonexistent")));
  EXPECT_THAT(database.open_listener(), StatusIs(absl::StatusCode::kUnavailable, _));
}

TEST(Database, OptionsThatCannotWorkAreRefused) {
  const auto nothing = [](pqxx::work&) { return absl::OkStatus(); };
  Database malformed({.dsn = "nonsense"});
  EXPECT_THAT(malformed.transact(nothing), StatusIs(absl::StatusCode::kInvalidArgument, _));
  Database empty_pool({.dsn = "host=db", .pool_size = 0});
  EXPECT_THAT(empty_pool.transact(nothing),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("pool_size: 0")));
}

}  // namespace
}  // namespace qaas
