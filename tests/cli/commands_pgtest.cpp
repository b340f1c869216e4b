// The program against the real service and a real database.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <google/protobuf/util/json_util.h>

#include "storage/artifacts/artifact_store.h"
#include "tests/cli/run_program.h"
#include "tests/server/server_fixture.h"

namespace qaas::testing {
namespace {

using ::qaas::cli::testing::ProgramRun;
using ::qaas::cli::testing::run_program;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class Commands : public ServerTest {
 protected:
  ProgramRun run(const std::vector<std::string>& arguments) {
    return run_program(server().address().text(), arguments);
  }

  /// Submits a job that is valid but for what `more` says; each flag may be given once only.
  ProgramRun submit_with(std::vector<std::string> more) {
    const std::vector<std::pair<std::string, std::string>> defaults = {
        {"--model", "tiny"},
        {"--method", "round-to-nearest"},
        {"--bits", "4"},
        {"--group-size", "32"},
        {"--evaluation", "text"}};
    std::vector<std::string> arguments = {"submit"};
    for (const auto& [flag, value] : defaults) {
      if (std::find(more.begin(), more.end(), flag) != more.end()) continue;
      arguments.insert(arguments.end(), {flag, value});
    }
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }

  template <typename Message>
  static Message parse(const std::string& json) {
    Message message;
    EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(json, &message).ok()) << json;
    return message;
  }

  std::string submitted_name(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = more;
    arguments.push_back("--json");
    return parse<v1::Job>(submit_with(arguments).out).name();
  }

  /// Finishes the job as a worker would, with one artifact file.
  void finish(const std::string& name) {
    const Lease lease = claim(name);
    const auto store = open_local_artifact_store(artifact_root());
    ASSERT_THAT(store, IsOk());
    const std::string key = "jobs/" + lease.job_id + "/attempts/1/artifact/config.json";
    const auto stored = (*store)->put(key, scratch_.write("config.json", "{}"));
    ASSERT_THAT(stored, IsOk());
    v1::Evaluation evaluation;
    evaluation.mutable_original()->set_perplexity(12.5);
    evaluation.mutable_quantized()->set_perplexity(13.5);
    ASSERT_THAT(this->store().settle_succeeded(lease,
                                               {{.name = "config.json",
                                                 .key = key,
                                                 .size_bytes = stored->size_bytes,
                                                 .sha256 = stored->sha256}},
                                               evaluation),
                IsOk());
  }

  TemporaryFolder scratch_;
};

TEST_F(Commands, SubmitQueuesAJobAndShowsItsForecast) {
  const ProgramRun submitted = submit_with({});
  EXPECT_EQ(submitted.exit, 0) << submitted.err;
  EXPECT_THAT(submitted.out, AllOf(HasSubstr("jobs/"), HasSubstr("queued"),
                                   HasSubstr("round-to-nearest, 4 bits, groups of 32, symmetric"),
                                   HasSubstr("ouyang2024")));
}

TEST_F(Commands, SubmitUnderOneRequestIdQueuesOnce) {
  const std::vector<std::string> id = {"--request-id", "0f0e0d0c-0b0a-4908-8706-050403020100"};
  const std::string name = submitted_name(id);
  EXPECT_THAT(name, StartsWith("jobs/"));
  EXPECT_EQ(submitted_name(id), name);
  const ProgramRun other_body = submit_with({id[0], id[1], "--seed", "9"});
  EXPECT_EQ(other_body.exit, 7) << other_body.err;
}

TEST_F(Commands, SubmitPrintsEachViolationOnALine) {
  const ProgramRun refused = submit_with({"--group-size", "48", "--samples", "0"});
  EXPECT_EQ(refused.exit, 2);
  EXPECT_THAT(refused.err, AllOf(HasSubstr("error: invalid argument"),
                                 HasSubstr("\n  spec.weights.group_size: found 48; accepted: 32"),
                                 HasSubstr("\n  spec.calibration: ")));
  EXPECT_EQ(refused.out, "");
  EXPECT_THAT(submit_with({"--group-size", "256"}).err,
              HasSubstr("does not divide the 64 inputs of 'model.layers.0.self_attn.q_proj'"));
}

TEST_F(Commands, ValidateOnlyQueuesNothing) {
  const ProgramRun validated = submit_with({"--validate-only"});
  EXPECT_EQ(validated.exit, 0) << validated.err;
  EXPECT_THAT(validated.out, HasSubstr("validated only"));
  EXPECT_EQ(run({"list"}).out, "no jobs\n");
}

TEST_F(Commands, AnUnknownModelIsRefusedWithTheKnownOnes) {
  const ProgramRun refused = submit_with({"--model", "models/huge"});
  EXPECT_EQ(refused.exit, 2);
  EXPECT_THAT(refused.err, HasSubstr("models/tiny"));
}

TEST_F(Commands, ForecastShowsLawAndSizes) {
  const ProgramRun forecast =
      run({"forecast", "--model", "tiny", "--method", "efficient-qat", "--bits", "4",
           "--group-size", "32", "--calibration", "text", "--evaluation", "text"});
  EXPECT_EQ(forecast.exit, 0) << forecast.err;
  EXPECT_THAT(forecast.out, AllOf(HasSubstr("chen2025 W4A16"), HasSubstr("weight file"),
                                  HasSubstr("vllm: loads it")));
}

TEST_F(Commands, ListAndGetAgreeWithOrWithoutTheCollection) {
  const std::string name = submitted_name();
  const std::string id = name.substr(std::string("jobs/").size());
  EXPECT_THAT(run({"list"}).out, HasSubstr(id));
  EXPECT_EQ(run({"get", id}).out, run({"get", name}).out);
  EXPECT_EQ(parse<v1::Job>(run({"get", id, "--json"}).out).name(), name);
}

TEST_F(Commands, ListGoesOverPagesUpToItsLimit) {
  for (int i = 0; i < 3; ++i) submit();
  EXPECT_EQ(parse<v1::ListJobsResponse>(run({"list", "--json"}).out).jobs_size(), 3);
  const ProgramRun two = run({"list", "--limit", "2"});
  EXPECT_THAT(two.out, HasSubstr("(more: raise --limit)"));
}

TEST_F(Commands, AMissingJobIsNotFound) {
  const ProgramRun missing = run({"get", "00000000-0000-4000-8000-000000000000"});
  EXPECT_EQ(missing.exit, 3);
  EXPECT_THAT(missing.err, StartsWith("error: not found: "));
  EXPECT_EQ(run({"get", "no-uuid"}).exit, 2);
}

TEST_F(Commands, CancelEndsAQueuedJobAndWatchSaysSo) {
  const std::string name = submitted_name();
  EXPECT_THAT(run({"cancel", name}).out, HasSubstr("is cancelled"));
  const ProgramRun watched = run({"watch", name});
  EXPECT_EQ(watched.exit, 6) << watched.err;
  EXPECT_THAT(watched.out, HasSubstr("cancelled"));
}

TEST_F(Commands, WatchOfAFailedJobSaysWhy) {
  const std::string name = submitted_name();
  v1::Failure failure;
  failure.set_failure_class(v1::FAILURE_CLASS_CALLER);
  failure.set_code("INVALID_ARGUMENT");
  failure.set_message("tensor 'x' is short");
  ASSERT_THAT(store().settle_failed(claim(name), failure), IsOk());
  const ProgramRun watched = run({"watch", name});
  EXPECT_EQ(watched.exit, 5) << watched.err;
  EXPECT_THAT(watched.out, HasSubstr("INVALID_ARGUMENT: tensor 'x' is short"));
}

TEST_F(Commands, AFinishedJobIsShownListedAndDownloaded) {
  const std::string name = submitted_name();
  finish(name);
  EXPECT_THAT(run({"get", name}).out, AllOf(HasSubstr("succeeded"), HasSubstr("13.5")));
  EXPECT_THAT(run({"artifacts", name}).out, HasSubstr("config.json"));
  EXPECT_EQ(run({"cancel", name}).exit, 7) << "it has settled";
  const ProgramRun watched = run({"watch", name, "--json"});
  EXPECT_EQ(watched.exit, 0) << watched.err;
  EXPECT_THAT(watched.out, HasSubstr("JOB_STATE_SUCCEEDED"));

  const std::string out = scratch_ / "out";
  const ProgramRun downloaded = run({"download", name, "--out", out});
  EXPECT_EQ(downloaded.exit, 0) << downloaded.err;
  EXPECT_EQ(read_file(scratch_ / "out/config.json"), "{}");
}

TEST_F(Commands, AnUnfinishedJobHasNothingToDownload) {
  const ProgramRun downloaded = run({"download", submitted_name(), "--out", scratch_ / "out"});
  EXPECT_EQ(downloaded.exit, 7);
  EXPECT_THAT(downloaded.err, HasSubstr("is queued; a job has files once it has succeeded"));
  EXPECT_FALSE(std::filesystem::exists(scratch_ / "out"));
}

TEST_F(Commands, ModelsAreListedAndDescribed) {
  EXPECT_THAT(run({"models"}).out, AllOf(HasSubstr("tiny"), HasSubstr("ready")));
  EXPECT_THAT(run({"models", "tiny"}).out,
              AllOf(HasSubstr("llama, 1 blocks of 64"), HasSubstr("projections   7\n")));
  EXPECT_EQ(run({"models", "absent"}).exit, 3);
}

}  // namespace
}  // namespace qaas::testing
