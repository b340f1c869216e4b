#include "workers/agent/worker_options.h"

#include "tests/agent/temporary_folder.h"
#include "tests/support/status_matchers.h"

namespace qaas::testing {
namespace {

using ::testing::HasSubstr;

WorkerCommandLine parse(const std::vector<std::string>& extra) {
  std::vector<const char*> arguments{"qaas-worker", "--models", "m",         "--datasets", "d",
                                     "--artifacts", "a",        "--scratch", "s"};
  for (const std::string& text : extra) arguments.push_back(text.c_str());
  return parse_worker_options(static_cast<int>(arguments.size()), arguments.data());
}

TEST(WorkerOptions, EverySettingHasADefault) {
  const WorkerCommandLine line = parse({"--database", "host=/run/postgresql"});
  ASSERT_TRUE(line.run) << line.text;
  EXPECT_EQ(line.options.dsn, "host=/run/postgresql");
  EXPECT_EQ(line.options.metrics.text(), "127.0.0.1:9465");
  EXPECT_EQ(line.options.jobs.lease, std::chrono::seconds(15));
  EXPECT_EQ(line.options.agent.attempt.lease, std::chrono::seconds(15));
  EXPECT_EQ(line.options.housekeeping.lease, std::chrono::seconds(15));
  EXPECT_GE(line.options.agent.attempt.roots.threads, 1);
  EXPECT_EQ(line.options.agent.attempt.roots.engine.filename(), "qaas-engine");
  EXPECT_TRUE(line.options.agent.attempt.roots.models.is_absolute())
      << "the engine runs in another folder";
  EXPECT_NE(line.options.agent.name, "");
}

TEST(WorkerOptions, OneLeaseLengthHoldsEverywhere) {
  const WorkerCommandLine line = parse({"--database", "x", "--lease-seconds", "2.5"});
  ASSERT_TRUE(line.run) << line.text;
  const std::chrono::milliseconds length(2500);
  EXPECT_EQ(line.options.jobs.lease, length);
  EXPECT_EQ(line.options.agent.attempt.lease, length);
  EXPECT_EQ(line.options.housekeeping.lease, length);
}

TEST(WorkerOptions, TheDatabaseMayBeNamedInAFile) {
  const TemporaryFolder folder;
  const std::string file = folder.path() / "dsn";
  write_file(file, " host=db password=secret \n");
  const WorkerCommandLine line = parse({"--database-file", file});
  ASSERT_TRUE(line.run) << line.text;
  EXPECT_EQ(line.options.dsn, "host=db password=secret");
}

TEST(WorkerOptions, MistakesAreNamedAndEndWithTwo) {
  const std::pair<std::vector<std::string>, const char*> rows[] = {
      {{}, "--database or --database-file is required"},
      {{"--database-file", "/nowhere"}, "/nowhere"},
      {{"--database", "x", "--database-file", "y"}, "excludes"},
      {{"--database", "x", "--metrics", "9465"}, "--metrics"},
      {{"--database", "x", "--metrics", "0.0.0.0:9465"}, "only loopback addresses"},
      {{"--database", "x", "--threads", "0"}, "--threads"},
      {{"--database", "x", "--lease-seconds", "0"}, "--lease-seconds"},
      {{"--database", "x", "--log-format", "xml"}, "xml"},
      {{"--database", "x", "--no-such-flag"}, "--no-such-flag"},
  };
  for (const auto& [arguments, words] : rows) {
    const WorkerCommandLine line = parse(arguments);
    EXPECT_FALSE(line.run) << words;
    EXPECT_EQ(line.exit_code, 2) << words;
    EXPECT_THAT(line.text, HasSubstr(words));
  }
}

TEST(WorkerOptions, HelpNamesEveryFlagWithItsDefault) {
  const WorkerCommandLine line = parse({"--help"});
  EXPECT_FALSE(line.run);
  EXPECT_EQ(line.exit_code, 0);
  for (const char* flag : {"--database",
                           "--database-file",
                           "--models",
                           "--datasets",
                           "--artifacts",
                           "--scratch",
                           "--engine",
                           "--metrics",
                           "--threads",
                           "--name",
                           "--log-format",
                           "--log-level",
                           "--lease-seconds",
                           "--max-failures",
                           "--first-backoff-seconds",
                           "--max-backoff-seconds",
                           "--poll-seconds",
                           "--cancel-grace-seconds",
                           "--stop-grace-seconds",
                           "--handover-seconds",
                           "--rest-seconds",
                           "--max-rest-seconds",
                           "--collect-minutes",
                           "--event-queue",
                           "--event-queue-mib",
                           "--engine-line-bytes",
                           "--engine-lines-per-second"}) {
    EXPECT_THAT(line.text, HasSubstr(std::string(flag) + " "));
  }
  EXPECT_THAT(line.text, HasSubstr("--metrics TEXT=127.0.0.1:9465"));
}

TEST(CheckWorkerPaths, NamesTheFlagOfWhatIsMissing) {
  WorkerOptions options;
  options.agent.attempt.roots = {.models = "/", .datasets = "/nowhere", .engine = "/bin/sh"};
  EXPECT_THAT(check_worker_paths(options),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("--datasets /nowhere")));
  options.agent.attempt.roots.datasets = "/";
  EXPECT_THAT(check_worker_paths(options), IsOk());
}

}  // namespace
}  // namespace qaas::testing
