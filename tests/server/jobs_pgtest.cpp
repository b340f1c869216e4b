// GetJob, ListJobs, CancelJob.
#include "tests/server/server_fixture.h"

namespace qaas::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

class Jobs : public ServerTest {
 protected:
  grpc::Status get_job(const std::string& name) {
    v1::GetJobRequest request;
    request.set_name(name);
    v1::Job job;
    return jobs().GetJob(call_context().get(), request, &job);
  }
  grpc::Status list(int page_size, const std::string& token, v1::ListJobsResponse& page) {
    v1::ListJobsRequest request;
    request.set_page_size(page_size);
    request.set_page_token(token);
    return jobs().ListJobs(call_context().get(), request, &page);
  }
  grpc::Status cancel(const std::string& name, v1::Job& job) {
    v1::CancelJobRequest request;
    request.set_name(name);
    return jobs().CancelJob(call_context().get(), request, &job);
  }
};

TEST_F(Jobs, UnknownJobIsNotFound) {
  EXPECT_THAT(get_job("jobs/0b1c7f3e-5d0a-4c57-9a3e-2f6f0e3b8f11"),
              IsRefusal(grpc::StatusCode::NOT_FOUND, "JOB_NOT_FOUND"));
}

TEST_F(Jobs, NameOfAnotherFormIsRefused) {
  for (const char* name :
       {"", "jobs/", "jobs/x", "models/tiny", "jobs/../models/tiny",
        "0b1c7f3e-5d0a-4c57-9a3e-2f6f0e3b8f11", "jobs/0B1C7F3E-5D0A-4C57-9A3E-2F6F0E3B8F11",
        "jobs/0b1c7f3e-5d0a-4c57-9a3e-2f6f0e3b8f11/"}) {
    const grpc::Status status = get_job(name);
    EXPECT_THAT(status, IsRefusal(grpc::StatusCode::INVALID_ARGUMENT, "FIELD_INVALID")) << name;
    EXPECT_THAT(violated_fields(status), ElementsAre("name")) << name;
  }
}

TEST_F(Jobs, PagesHoldEveryJobOnceNewestFirst) {
  std::vector<std::string> submitted;
  for (int i = 0; i < 5; ++i) submitted.insert(submitted.begin(), submit());
  std::vector<std::string> listed;
  std::string token;
  int pages = 0;
  do {
    v1::ListJobsResponse page;
    ASSERT_TRUE(list(2, token, page).ok());
    for (const v1::Job& job : page.jobs()) listed.push_back(job.name());
    token = page.next_page_token();
    ++pages;
  } while (!token.empty());
  EXPECT_EQ(pages, 3);
  EXPECT_THAT(listed, ElementsAreArray(submitted));
}

TEST_F(Jobs, BadPageArgumentsAreRefused) {
  submit();
  submit();
  v1::ListJobsResponse page;
  EXPECT_THAT(violated_fields(list(-1, "", page)), ElementsAre("page_size"));
  ASSERT_TRUE(list(1, "", page).ok());
  const std::string token = page.next_page_token();
  ASSERT_FALSE(token.empty());
  for (const std::string& bad : {std::string("nonsense"), token + "x", token.substr(1)}) {
    EXPECT_THAT(violated_fields(list(1, bad, page)), ElementsAre("page_token")) << bad;
  }
  v1::ListModelsRequest other;
  other.set_page_token(token);
  v1::ListModelsResponse ignored;
  EXPECT_THAT(violated_fields(models().ListModels(call_context().get(), other, &ignored)),
              ElementsAre("page_token"))
      << "a token of ListJobs is none of ListModels";
}

TEST_F(Jobs, QueuedJobIsCancelledAtOnce) {
  v1::Job job;
  const std::string name = submit();
  ASSERT_TRUE(cancel(name, job).ok());
  EXPECT_EQ(job.state(), v1::JOB_STATE_CANCELLED);
  EXPECT_TRUE(cancel(name, job).ok()) << "asking twice is fine";
}

TEST_F(Jobs, RunningJobIsAskedToStop) {
  const std::string name = submit();
  const Lease lease = claim(name);
  v1::Job job;
  ASSERT_TRUE(cancel(name, job).ok());
  EXPECT_EQ(job.state(), v1::JOB_STATE_RUNNING);
  EXPECT_TRUE(job.cancel_requested());
  QAAS_ASSERT_OK_AND_ASSIGN(const LeaseState state, store().renew(lease));
  EXPECT_EQ(state, LeaseState::kCancelRequested);
}

TEST_F(Jobs, SettledJobCannotBeCancelled) {
  const std::string name = submit();
  ASSERT_THAT(store().settle_succeeded(claim(name), {}, v1::Evaluation()), IsOk());
  v1::Job job;
  EXPECT_THAT(cancel(name, job), IsRefusal(grpc::StatusCode::FAILED_PRECONDITION, "JOB_SETTLED"));
}

TEST_F(Jobs, UnknownJobCannotBeCancelled) {
  v1::Job job;
  EXPECT_THAT(cancel("jobs/0b1c7f3e-5d0a-4c57-9a3e-2f6f0e3b8f11", job),
              IsRefusal(grpc::StatusCode::NOT_FOUND, "JOB_NOT_FOUND"));
}

}  // namespace
}  // namespace qaas::testing
