// SubmitJob and Forecast: what is taken, what is refused and how, and that a retry is harmless.
#include <set>
#include <thread>

#include "tests/server/server_fixture.h"

namespace qaas::testing {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr char kRequestId[] = "0b1c7f3e-5d0a-4c57-9a3e-2f6f0e3b8f11";

class SubmitJob : public ServerTest {
 protected:
  grpc::Status submit_request(const v1::SubmitJobRequest& request, v1::Job& job) {
    return jobs().SubmitJob(call_context().get(), request, &job);
  }
  grpc::Status submit_spec(const v1::JobSpec& spec) {
    v1::SubmitJobRequest request;
    *request.mutable_spec() = spec;
    v1::Job job;
    return submit_request(request, job);
  }
  int64_t job_count() { return execute("SELECT count(*) FROM job")[0][0].as<int64_t>(); }
};

TEST_F(SubmitJob, AnswersWithTheQueuedJobPinnedToItsModel) {
  v1::SubmitJobRequest request;
  *request.mutable_spec() = round_to_nearest();
  request.set_request_id(kRequestId);
  v1::Job job;
  const grpc::Status status = submit_request(request, job);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(job.state(), v1::JOB_STATE_QUEUED);
  EXPECT_EQ(job.request_id(), kRequestId);
  EXPECT_TRUE(job.spec().weights().has_symmetric()) << "defaults are filled in";
  EXPECT_GT(job.forecast().artifact_bytes(), 0);
  v1::Model model;
  ASSERT_TRUE(get_model("models/tiny", model).ok());
  EXPECT_THAT(model.sha256(), SizeIs(64));
  EXPECT_EQ(job.model_digest(), model.sha256());
  EXPECT_EQ(get(job.name()).SerializeAsString(), job.SerializeAsString());
}

TEST_F(SubmitJob, EqualRequestsAtOnceMakeOneJob) {
  v1::SubmitJobRequest request;
  *request.mutable_spec() = round_to_nearest();
  request.set_request_id(kRequestId);
  std::vector<v1::Job> answers(8);
  std::vector<std::thread> callers;
  for (v1::Job& answer : answers) {
    callers.emplace_back([&] {
      const grpc::Status status = submit_request(request, answer);
      EXPECT_TRUE(status.ok()) << status.error_message();
    });
  }
  for (std::thread& caller : callers) caller.join();
  std::set<std::string> names;
  for (const v1::Job& answer : answers) names.insert(answer.name());
  EXPECT_THAT(names, SizeIs(1));
  EXPECT_EQ(job_count(), 1);
}

TEST_F(SubmitJob, RetryFindsItsJobAfterTheModelIsGone) {
  v1::SubmitJobRequest request;
  *request.mutable_spec() = round_to_nearest();
  request.set_request_id(kRequestId);
  v1::Job first;
  ASSERT_TRUE(submit_request(request, first).ok());
  std::filesystem::remove_all(model_root() / "tiny");
  wait_until(
      [&] {
        v1::Model model;
        return !get_model("models/tiny", model).ok();
      },
      "the model is forgotten");
  v1::Job again;
  const grpc::Status status = submit_request(request, again);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(again.name(), first.name());
}

TEST_F(SubmitJob, RequestIdWithAnotherBodyIsRefused) {
  v1::SubmitJobRequest request;
  *request.mutable_spec() = round_to_nearest();
  request.set_request_id(kRequestId);
  v1::Job job;
  ASSERT_TRUE(submit_request(request, job).ok());
  request.mutable_spec()->set_seed(99);
  EXPECT_THAT(submit_request(request, job),
              IsRefusal(grpc::StatusCode::ALREADY_EXISTS, "REQUEST_ID_REUSED"));
  EXPECT_EQ(job_count(), 1);
}

// One UUID in two spellings would be two ids: a retry in the other case would submit twice.
TEST_F(SubmitJob, RequestIdThatIsNoLowerCaseUuidIsRefused) {
  for (const char* id : {"my job", "0B1C7F3E-5D0A-4C57-9A3E-2F6F0E3B8F11"}) {
    v1::SubmitJobRequest request;
    *request.mutable_spec() = round_to_nearest();
    request.set_request_id(id);
    v1::Job job;
    const grpc::Status status = submit_request(request, job);
    EXPECT_THAT(status, IsRefusal(grpc::StatusCode::INVALID_ARGUMENT, "FIELD_INVALID")) << id;
    EXPECT_THAT(violated_fields(status), ElementsAre("request_id")) << id;
  }
}

TEST_F(SubmitJob, ValidateOnlyAnswersWithoutNameAndReservesNothing) {
  v1::SubmitJobRequest request;
  *request.mutable_spec() = round_to_nearest();
  request.set_request_id(kRequestId);
  request.set_validate_only(true);
  v1::Job job;
  ASSERT_TRUE(submit_request(request, job).ok());
  EXPECT_EQ(job.name(), "");
  EXPECT_GT(job.forecast().artifact_bytes(), 0);
  EXPECT_EQ(job_count(), 0);
  request.set_validate_only(false);
  request.mutable_spec()->set_seed(99);  // the request_id is still free
  EXPECT_TRUE(submit_request(request, job).ok());
}

TEST_F(SubmitJob, InvalidSpecNamesEveryField) {
  v1::JobSpec spec = round_to_nearest();
  spec.mutable_weights()->set_bits(5);
  spec.clear_evaluation();
  const grpc::Status status = submit_spec(spec);
  EXPECT_THAT(status, IsRefusal(grpc::StatusCode::INVALID_ARGUMENT, "FIELD_INVALID"));
  EXPECT_THAT(violated_fields(status), Contains("spec.weights.bits"));
  EXPECT_THAT(violated_fields(status), Contains(HasSubstr("spec.evaluation")));
}

TEST_F(SubmitJob, GroupSizeThatDoesNotFitNamesTheLayer) {
  v1::JobSpec spec = round_to_nearest();
  spec.mutable_weights()->set_group_size(128);  // hidden size is 64
  const grpc::Status status = submit_spec(spec);
  EXPECT_THAT(status, IsRefusal(grpc::StatusCode::INVALID_ARGUMENT, "FIELD_INVALID"));
  EXPECT_THAT(violated_fields(status), ElementsAre("spec.weights.group_size"));
  EXPECT_THAT(status.error_message(), HasSubstr("model.layers.0.self_attn.q_proj"));
}

TEST_F(SubmitJob, UnknownModelAndDatasetListThoseThatExist) {
  v1::JobSpec spec = round_to_nearest();
  spec.set_model("models/huge");
  grpc::Status status = submit_spec(spec);
  EXPECT_THAT(violated_fields(status), ElementsAre("spec.model"));
  EXPECT_THAT(status.error_message(), HasSubstr("models/tiny"));

  spec = round_to_nearest();
  spec.mutable_evaluation()->set_dataset("datasets/none");
  status = submit_spec(spec);
  EXPECT_THAT(violated_fields(status), ElementsAre("spec.evaluation.dataset"));
  EXPECT_THAT(status.error_message(), HasSubstr("datasets/text"));
}

TEST_F(SubmitJob, FurtherTextsAndTasksAreLookedUpLikeTheFirst) {
  v1::JobSpec spec = round_to_nearest();
  spec.add_further_evaluations()->set_dataset("datasets/nowhere");
  spec.add_tasks("datasets/text");
  spec.add_tasks("datasets/neither");
  EXPECT_THAT(violated_fields(submit_spec(spec)),
              ElementsAre("spec.further_evaluations[0].dataset", "spec.tasks[1]"));
}

TEST_F(SubmitJob, NamesThatLeaveTheRootAreRefused) {
  for (const char* name : {"models/..", "models/../tiny", "models/tiny/..", "/models/tiny", "tiny",
                           "datasets/tiny", "models/", "models/.hidden", "models/tiny/"}) {
    v1::JobSpec spec = round_to_nearest();
    spec.set_model(name);
    const grpc::Status status = submit_spec(spec);
    EXPECT_THAT(status, IsRefusal(grpc::StatusCode::INVALID_ARGUMENT, "FIELD_INVALID")) << name;
    EXPECT_THAT(violated_fields(status), ElementsAre("spec.model")) << name;
  }
}

TEST_F(SubmitJob, DamagedModelIsRefusedWithTheReason) {
  const auto weights = model_root() / "tiny" / "model.safetensors";
  std::filesystem::resize_file(weights, std::filesystem::file_size(weights) - 1);
  wait_for_model("models/tiny", v1::Model::STATE_INVALID);
  const grpc::Status status = submit_spec(round_to_nearest());
  EXPECT_THAT(violated_fields(status), ElementsAre("spec.model"));
  EXPECT_THAT(status.error_message(), HasSubstr("model.safetensors"));
  EXPECT_THAT(status.error_message(), ::testing::Not(HasSubstr(model_root().string())));
}

TEST_F(SubmitJob, ModelThatIsStillHashedAsksTheCallerToRetry) {
  // Half a terabyte of holes: nobody hashes that within this test. The server must also be able to
  // stop meanwhile, or TearDown would hang.
  std::ofstream(model_root() / "tiny" / "padding.bin") << "x";
  std::filesystem::resize_file(model_root() / "tiny" / "padding.bin", uintmax_t{1} << 39);
  wait_for_model("models/tiny", v1::Model::STATE_SCANNING);
  const grpc::Status status = submit_spec(round_to_nearest());
  EXPECT_THAT(status, IsRefusal(grpc::StatusCode::FAILED_PRECONDITION, "MODEL_SCANNING"));
  EXPECT_GT(details_of(status).retry.retry_delay().seconds(), 0);
}

TEST_F(SubmitJob, EmptyDatasetIsRefused) {
  std::filesystem::create_directories(dataset_root() / "empty");
  std::ofstream(dataset_root() / "empty" / "a.txt") << "";
  v1::JobSpec spec = round_to_nearest();
  spec.mutable_evaluation()->set_dataset("datasets/empty");
  wait_until(
      [&] { return submit_spec(spec).error_message().find("are empty") != std::string::npos; },
      "the dataset is seen, and refused as empty");
}

TEST_F(SubmitJob, UnknownFieldIsRefusedByItsNumber) {
  v1::SubmitJobRequest request;
  *request.mutable_spec() = round_to_nearest();
  v1::JobSpec* spec = request.mutable_spec();
  spec->mutable_weights()
      ->GetReflection()
      ->MutableUnknownFields(spec->mutable_weights())
      ->AddVarint(77, 1);
  v1::Job job;
  const grpc::Status status = submit_request(request, job);
  EXPECT_THAT(status, IsRefusal(grpc::StatusCode::INVALID_ARGUMENT, "FIELD_INVALID"));
  EXPECT_THAT(violated_fields(status), ElementsAre("spec.weights.#77"));
}

TEST_F(SubmitJob, ManyLongViolationsStillReachTheClient) {
  v1::JobSpec spec = round_to_nearest();
  for (int i = 0; i < 64; ++i) {
    auto* added = spec.add_overrides();
    added->set_pattern(std::string(250, 'x'));
    added->mutable_weights()->set_bits(5);
  }
  const grpc::Status status = submit_spec(spec);
  EXPECT_THAT(status, IsRefusal(grpc::StatusCode::INVALID_ARGUMENT, "FIELD_INVALID"));
  EXPECT_THAT(status.error_message(), HasSubstr("more"));
}

TEST_F(SubmitJob, RequestBeyondTheLimitIsRefused) {
  v1::JobSpec spec = round_to_nearest();
  spec.set_model(std::string(2 << 20, 'x'));
  EXPECT_EQ(submit_spec(spec).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(SubmitJob, ForecastEqualsThatOfTheSubmittedJob) {
  v1::ForecastRequest request;
  *request.mutable_spec() = round_to_nearest();
  v1::ForecastResponse response;
  ASSERT_TRUE(jobs().Forecast(call_context().get(), request, &response).ok());
  EXPECT_EQ(job_count(), 0);
  const v1::Job job = get(submit());
  EXPECT_EQ(response.spec().SerializeAsString(), job.spec().SerializeAsString());
  EXPECT_EQ(response.forecast().SerializeAsString(), job.forecast().SerializeAsString());
}

TEST_F(SubmitJob, ForecastRefusesAsSubmitDoes) {
  v1::ForecastRequest request;
  *request.mutable_spec() = round_to_nearest();
  request.mutable_spec()->set_model("models/huge");
  v1::ForecastResponse response;
  const grpc::Status status = jobs().Forecast(call_context().get(), request, &response);
  EXPECT_THAT(violated_fields(status), ElementsAre("spec.model"));
}

}  // namespace
}  // namespace qaas::testing
