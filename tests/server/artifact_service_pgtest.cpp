// ListArtifacts and DownloadArtifact over a real store.
#include "storage/artifacts/artifact_store.h"
#include "tests/server/server_fixture.h"

namespace qaas::testing {
namespace {

using ::testing::ElementsAre;

constexpr size_t kMiB = 1 << 20;

class Artifacts : public ServerTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    if (HasFatalFailure()) return;
    bytes_.resize(2 * kMiB + kMiB / 2 + 3);
    uint32_t state = 1;
    for (char& byte : bytes_)
      byte = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  }

  // Runs a job to its end with two files, and returns its name.
  std::string finished_job() {
    const std::string name = submit();
    const Lease lease = claim(name);
    const auto store = open_local_artifact_store(artifact_root());
    EXPECT_THAT(store, IsOk());
    std::vector<StoredFile> files;
    for (const auto& [file, content] : {std::pair<std::string, std::string>{"config.json", "{}"},
                                        {"model.safetensors", bytes_}}) {
      const auto key = "jobs/" + lease.job_id + "/attempts/1/artifact/" + file;
      const auto stored = (*store)->put(key, scratch_.write(file, content));
      EXPECT_THAT(stored, IsOk());
      files.push_back(
          {.name = file, .key = key, .size_bytes = stored->size_bytes, .sha256 = stored->sha256});
    }
    EXPECT_THAT(this->store().settle_succeeded(lease, files, v1::Evaluation()), IsOk());
    return name;
  }

  grpc::Status list(const std::string& parent, int size, const std::string& token,
                    v1::ListArtifactsResponse& page) {
    v1::ListArtifactsRequest request;
    request.set_parent(parent);
    request.set_page_size(size);
    request.set_page_token(token);
    return artifacts().ListArtifacts(call_context().get(), request, &page);
  }

  // Reads a stream to its end; checks that chunks join without a gap.
  grpc::Status download(const std::string& name, int64_t offset, v1::Artifact& artifact,
                        std::string& content) {
    v1::DownloadArtifactRequest request;
    request.set_name(name);
    request.set_offset(offset);
    const auto context = call_context();
    const auto reader = artifacts().DownloadArtifact(context.get(), request);
    v1::DownloadArtifactResponse response;
    bool first = true;
    while (reader->Read(&response)) {
      EXPECT_EQ(response.has_artifact(), first);
      EXPECT_EQ(response.offset(), offset + static_cast<int64_t>(content.size()));
      EXPECT_EQ(response.content().empty(), first);
      EXPECT_LE(response.content().size(), kMiB);
      if (first) artifact = response.artifact();
      first = false;
      content += response.content();
    }
    return reader->Finish();
  }

  TemporaryFolder scratch_;
  std::string bytes_;
};

TEST_F(Artifacts, ListsFilesInNameOrderOverPages) {
  const std::string job = finished_job();
  v1::ListArtifactsResponse page;
  ASSERT_TRUE(list(job, 1, "", page).ok());
  ASSERT_EQ(page.artifacts_size(), 1);
  EXPECT_EQ(page.artifacts(0).name(), job + "/artifacts/config.json");
  const std::string token = page.next_page_token();
  page.Clear();
  ASSERT_TRUE(list(job, 1, token, page).ok());
  ASSERT_EQ(page.artifacts_size(), 1);
  EXPECT_EQ(page.artifacts(0).name(), job + "/artifacts/model.safetensors");
  EXPECT_EQ(page.artifacts(0).size_bytes(), static_cast<int64_t>(bytes_.size()));
  EXPECT_EQ(page.next_page_token(), "");
}

TEST_F(Artifacts, UnfinishedJobHasNoneAndUnknownJobIsNotFound) {
  v1::ListArtifactsResponse page;
  EXPECT_TRUE(list(submit(), 0, "", page).ok());
  EXPECT_EQ(page.artifacts_size(), 0);
  EXPECT_THAT(list("jobs/0b1c7f3e-5d0a-4c57-9a3e-2f6f0e3b8f11", 0, "", page),
              IsRefusal(grpc::StatusCode::NOT_FOUND, "JOB_NOT_FOUND"));
  EXPECT_THAT(violated_fields(list("models/tiny", 0, "", page)), ElementsAre("parent"));
}

TEST_F(Artifacts, DownloadsWholeFilesAndFromAnyOffset) {
  const std::string name = finished_job() + "/artifacts/model.safetensors";
  for (const size_t offset : {size_t{0}, size_t{1}, kMiB, bytes_.size() - 1, bytes_.size()}) {
    v1::Artifact artifact;
    std::string content;
    const grpc::Status status = download(name, static_cast<int64_t>(offset), artifact, content);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_TRUE(content == bytes_.substr(offset)) << "from " << offset;
    EXPECT_EQ(artifact.name(), name);
    EXPECT_EQ(artifact.size_bytes(), static_cast<int64_t>(bytes_.size()));
    EXPECT_EQ(artifact.sha256().size(), 64U);
  }
  // The caller hears of the end a moment before the server has put the stream away.
  wait_until(
      [&] {
        return scrape(server().metrics_address().port).find("qaas_server_downloads 0") !=
               std::string::npos;
      },
      "every stream gives its slot back");
}

TEST_F(Artifacts, DownloadRefusesWhatIsNotThere) {
  const std::string job = finished_job();
  v1::Artifact artifact;
  std::string content;
  const std::string name = job + "/artifacts/model.safetensors";
  EXPECT_THAT(download(name, static_cast<int64_t>(bytes_.size()) + 1, artifact, content),
              IsRefusal(grpc::StatusCode::OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE"));
  EXPECT_THAT(violated_fields(download(name, -1, artifact, content)), ElementsAre("offset"));
  EXPECT_THAT(download(job + "/artifacts/none", 0, artifact, content),
              IsRefusal(grpc::StatusCode::NOT_FOUND, "ARTIFACT_NOT_FOUND"));
  for (const char* bad :
       {"/artifacts/..", "/artifacts/../config.json", "/artifacts/", "/files/x"}) {
    EXPECT_THAT(violated_fields(download(job + bad, 0, artifact, content)), ElementsAre("name"))
        << bad;
  }
  EXPECT_EQ(content, "");
}

TEST_F(Artifacts, FileCutShortOrGoneFromTheStoreIsDataLossNotAShortFile) {
  const std::string job = finished_job();
  std::filesystem::path stored;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(artifact_root())) {
    if (entry.path().filename() == "model.safetensors") stored = entry.path();
  }
  ASSERT_FALSE(stored.empty());
  const std::string name = job + "/artifacts/model.safetensors";
  v1::Artifact artifact;
  std::string content;
  std::filesystem::permissions(stored, std::filesystem::perms::owner_all);
  std::filesystem::resize_file(stored, kMiB);
  EXPECT_THAT(download(name, 0, artifact, content),
              IsRefusal(grpc::StatusCode::DATA_LOSS, "ARTIFACT_DAMAGED"));
  std::filesystem::remove(stored);
  content.clear();
  EXPECT_THAT(download(name, 0, artifact, content),
              IsRefusal(grpc::StatusCode::DATA_LOSS, "ARTIFACT_DAMAGED"));
}

TEST_F(Artifacts, DownloadsBeyondTheLimitAreTurnedAway) {
  ServerOptions one = options();
  one.max_downloads = 1;
  restart(one);
  const std::string name = finished_job() + "/artifacts/model.safetensors";
  v1::DownloadArtifactRequest request;
  request.set_name(name);
  const auto context = call_context();
  const auto reader = artifacts().DownloadArtifact(context.get(), request);
  v1::DownloadArtifactResponse response;
  ASSERT_TRUE(reader->Read(&response));  // open, and not read further
  v1::Artifact artifact;
  std::string content;
  EXPECT_THAT(download(name, 0, artifact, content),
              IsRefusal(grpc::StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_DOWNLOADS"));
}

}  // namespace
}  // namespace qaas::testing
