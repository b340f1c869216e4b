// The program against servers that fail or lie, which the real one cannot be made to do at will.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include "qaas/v1/artifact_service.grpc.pb.h"
#include "qaas/v1/quantization_service.grpc.pb.h"
#include "tests/cli/run_program.h"
#include "tests/support/temporary_folder.h"

namespace qaas::cli {
namespace {

using ::qaas::cli::testing::ProgramRun;
using ::qaas::cli::testing::run_program;
using ::qaas::testing::read_file;
using ::qaas::testing::TemporaryFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kJob[] = "jobs/7f3c";
// printf abcdef | sha256sum
constexpr char kDigest[] = "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721";

/// Watches end as told, one ending after another, each after one new event; the job settles with
/// the last.
class WatchService : public v1::QuantizationService::Service {
 public:
  std::vector<grpc::Status> endings;
  v1::JobState final_state = v1::JOB_STATE_SUCCEEDED;
  std::vector<int64_t> asked_after;
  std::vector<std::string> request_ids;
  int refused_submits = 0;

  grpc::Status SubmitJob(grpc::ServerContext*, const v1::SubmitJobRequest* request,
                         v1::Job* job) override {
    request_ids.push_back(request->request_id());
    if (refused_submits-- > 0) return {grpc::StatusCode::UNAVAILABLE, "restarting"};
    job->set_name(kJob);
    job->set_state(v1::JOB_STATE_QUEUED);
    return grpc::Status::OK;
  }

  grpc::Status GetJob(grpc::ServerContext*, const v1::GetJobRequest* request,
                      v1::Job* job) override {
    job->set_name(request->name());
    job->set_state(asked_after.size() < endings.size() ? v1::JOB_STATE_RUNNING : final_state);
    return grpc::Status::OK;
  }

  grpc::Status WatchJob(grpc::ServerContext*, const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::WatchJobResponse>* writer) override {
    asked_after.push_back(request->after_event());
    v1::WatchJobResponse response;
    response.mutable_event()->set_number(request->after_event() + 1);
    response.mutable_event()->mutable_warning()->set_message(
        absl::StrCat("event ", request->after_event() + 1));
    writer->Write(response);
    return endings[asked_after.size() - 1];
  }
};

/// One file in chunks of two bytes; each stream ends after as many chunks as told.
class FileService : public v1::ArtifactService::Service {
 public:
  std::string name = absl::StrCat(kJob, "/artifacts/model.safetensors");
  std::string content = "abcdef";
  std::string announced_digest = kDigest;
  std::vector<int> chunks_of_streams = {1000};
  int64_t offset_error = 0;
  std::vector<int64_t> asked_from;

  grpc::Status ListArtifacts(grpc::ServerContext*, const v1::ListArtifactsRequest*,
                             v1::ListArtifactsResponse* response) override {
    *response->add_artifacts() = artifact();
    return grpc::Status::OK;
  }

  grpc::Status DownloadArtifact(grpc::ServerContext*, const v1::DownloadArtifactRequest* request,
                                grpc::ServerWriter<v1::DownloadArtifactResponse>* writer) override {
    const size_t stream = std::min(asked_from.size(), chunks_of_streams.size() - 1);
    asked_from.push_back(request->offset());
    v1::DownloadArtifactResponse response;
    *response.mutable_artifact() = artifact();
    writer->Write(response);
    response.clear_artifact();
    int64_t offset = request->offset();
    for (int i = 0; i < chunks_of_streams[stream]; ++i) {
      if (offset >= static_cast<int64_t>(content.size())) return grpc::Status::OK;
      response.set_offset(offset + offset_error);
      response.set_content(content.substr(static_cast<size_t>(offset), 2));
      writer->Write(response);
      offset += 2;
    }
    return {grpc::StatusCode::UNAVAILABLE, "shutting down"};
  }

 private:
  v1::Artifact artifact() const {
    v1::Artifact result;
    result.set_name(name);
    result.set_size_bytes(6);
    result.set_sha256(announced_digest);
    return result;
  }
};

class FailingServer : public ::testing::Test {
 protected:
  FailingServer() {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&watch_);
    builder.RegisterService(&files_);
    server_ = builder.BuildAndStart();
    address_ = absl::StrCat("127.0.0.1:", port);
  }
  ~FailingServer() override { server_->Shutdown(); }

  ProgramRun run(const std::vector<std::string>& arguments) {
    return run_program(address_, arguments);
  }
  ProgramRun download() { return run({"download", "7f3c", "--out", (folder_ / "out").string()}); }

  std::filesystem::path file() const { return folder_ / "out" / "model.safetensors"; }
  std::filesystem::path partial() const { return file().string() + ".partial"; }
  void leave_partial(const std::string& content) {
    std::filesystem::create_directories(folder_ / "out");
    folder_.write("out/model.safetensors.partial", content);
  }

  TemporaryFolder folder_;
  WatchService watch_;
  FileService files_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

const grpc::Status kUnavailable(grpc::StatusCode::UNAVAILABLE, "shutting down");

TEST_F(FailingServer, WatchResumesAfterTheLastEventSeen) {
  watch_.endings = {kUnavailable, kUnavailable, grpc::Status::OK};
  const ProgramRun watched = run({"watch", "7f3c"});
  EXPECT_EQ(watched.exit, 0) << watched.err;
  EXPECT_THAT(watch_.asked_after, ElementsAre(0, 1, 2));
  EXPECT_THAT(watched.out, AllOf(HasSubstr("event 1\n"), HasSubstr("event 2\n"),
                                 HasSubstr("event 3\n"), HasSubstr("succeeded")));
  EXPECT_THAT(watched.err, HasSubstr("connection lost after event 1; resuming"));
}

TEST_F(FailingServer, WatchGoesOnWhileTheJobHasNotSettled) {
  watch_.endings = {grpc::Status::OK, grpc::Status::OK};
  EXPECT_EQ(run({"watch", "7f3c", "--after-event", "41"}).exit, 0);
  EXPECT_THAT(watch_.asked_after, ElementsAre(41, 42));
}

TEST_F(FailingServer, WatchTellsHowTheJobEndedByItsExitCode) {
  watch_.endings = {grpc::Status::OK};
  watch_.final_state = v1::JOB_STATE_FAILED;
  EXPECT_EQ(run({"watch", "7f3c"}).exit, 5);
  watch_.asked_after.clear();
  watch_.final_state = v1::JOB_STATE_CANCELLED;
  EXPECT_EQ(run({"watch", "jobs/7f3c"}).exit, 6);
}

TEST_F(FailingServer, WatchDoesNotResumeAfterOtherErrors) {
  watch_.endings = {{grpc::StatusCode::NOT_FOUND, "no such job"}, grpc::Status::OK};
  const ProgramRun watched = run({"watch", "7f3c"});
  EXPECT_EQ(watched.exit, 3);
  EXPECT_THAT(watched.err, HasSubstr("error: not found: no such job\n"));
  EXPECT_THAT(watch_.asked_after, ElementsAre(0));
}

TEST_F(FailingServer, SubmitAsksAgainUnderTheSameRequestId) {
  watch_.refused_submits = 2;
  const ProgramRun submitted = run({"submit", "--bits", "4"});
  EXPECT_EQ(submitted.exit, 0) << submitted.err;
  ASSERT_EQ(watch_.request_ids.size(), 3u);
  EXPECT_EQ(watch_.request_ids[0], watch_.request_ids[1]);
  EXPECT_EQ(watch_.request_ids[0], watch_.request_ids[2]);
  EXPECT_EQ(watch_.request_ids[0].size(), 36u);
}

TEST_F(FailingServer, NobodyThereIsToldWithTheAddress) {
  server_->Shutdown();
  const ProgramRun listed = run({"list"});
  EXPECT_EQ(listed.exit, 4);
  EXPECT_THAT(listed.err, HasSubstr(address_));
}

TEST_F(FailingServer, DownloadResumesWhereAStreamBroke) {
  files_.chunks_of_streams = {1, 1, 1000};
  const ProgramRun downloaded = download();
  EXPECT_EQ(downloaded.exit, 0) << downloaded.err;
  EXPECT_THAT(files_.asked_from, ElementsAre(0, 2, 4));
  EXPECT_EQ(read_file(file()), "abcdef");
  EXPECT_FALSE(std::filesystem::exists(partial()));
}

TEST_F(FailingServer, DownloadContinuesAnEarlierRunsPartialFile) {
  leave_partial("abcd");
  EXPECT_EQ(download().exit, 0);
  EXPECT_THAT(files_.asked_from, ElementsAre(4));
  EXPECT_EQ(read_file(file()), "abcdef");
}

TEST_F(FailingServer, DownloadBeginsAnewWhereThePartialFileIsAnotherFiles) {
  leave_partial("xxxx");
  EXPECT_EQ(download().exit, 0);
  EXPECT_THAT(files_.asked_from, ElementsAre(4, 0));
  EXPECT_EQ(read_file(file()), "abcdef");
}

TEST_F(FailingServer, DownloadLeavesAFileAloneThatIsThereAlready) {
  ASSERT_EQ(download().exit, 0);
  files_.asked_from.clear();
  const ProgramRun again = download();
  EXPECT_EQ(again.exit, 0);
  EXPECT_THAT(again.out, HasSubstr("there already"));
  EXPECT_TRUE(files_.asked_from.empty());
}

TEST_F(FailingServer, DownloadNeverOverwritesAnotherFile) {
  std::filesystem::create_directories(folder_ / "out");
  folder_.write("out/model.safetensors", "precious");
  const ProgramRun downloaded = download();
  EXPECT_EQ(downloaded.exit, 7);
  EXPECT_THAT(downloaded.err, HasSubstr("exists with other content"));
  EXPECT_EQ(read_file(file()), "precious");
}

TEST_F(FailingServer, DownloadRefusesBytesThatDoNotMatchTheDigest) {
  files_.content = "abcdeX";
  const ProgramRun downloaded = download();
  EXPECT_EQ(downloaded.exit, 8);
  EXPECT_THAT(downloaded.err, HasSubstr("the server announced bef57ec7"));
  EXPECT_FALSE(std::filesystem::exists(file()));
}

TEST_F(FailingServer, DownloadRefusesChunksOutOfPlace) {
  files_.offset_error = 1;
  EXPECT_EQ(download().exit, 8);
  files_.offset_error = 0;
  files_.content = "abcdefgh";
  EXPECT_EQ(download().exit, 8) << "more bytes than announced";
  EXPECT_FALSE(std::filesystem::exists(file()));
}

TEST_F(FailingServer, DownloadRefusesNamesThatLeadOutOfTheFolder) {
  for (const std::string& hostile :
       {absl::StrCat(kJob, "/artifacts/../../escaped"), absl::StrCat(kJob, "/artifacts/.."),
        absl::StrCat(kJob, "/artifacts/.bashrc"), absl::StrCat(kJob, "/artifacts/"),
        std::string("jobs/other/artifacts/model.safetensors"), std::string("/etc/cron.d/x"),
        absl::StrCat(kJob, "/artifacts/a\x1b[2J"), absl::StrCat(kJob, "/artifacts/x.partial")}) {
    files_.name = hostile;
    const ProgramRun downloaded = download();
    EXPECT_EQ(downloaded.exit, 8) << hostile;
    EXPECT_THAT(downloaded.err, AllOf(HasSubstr("no plain file name"), Not(HasSubstr("\x1b"))));
  }
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
}

TEST(Program, TellsItsVersion) {
  const ProgramRun run = run_program("127.0.0.1:1", {"--version"});
  EXPECT_EQ(run.exit, 0);
  EXPECT_THAT(run.out, ::testing::MatchesRegex("qaas [0-9.]+\n"));
}

}  // namespace
}  // namespace qaas::cli
