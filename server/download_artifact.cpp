#include "server/download_artifact.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <absl/strings/str_cat.h>

#include "server/errors.h"
#include "server/resource_names.h"

namespace qaas {
namespace {

constexpr int64_t kChunkBytes = 1 << 20;

}  // namespace

bool DownloadSlots::take() {
  if (taken_.fetch_add(1) >= slots_) {
    taken_.fetch_sub(1);
    return false;
  }
  open_.Increment();
  return true;
}

void DownloadSlots::give_back() {
  taken_.fetch_sub(1);
  open_.Decrement();
}

grpc::ServerWriteReactor<v1::DownloadArtifactResponse>* DownloadArtifact::start(
    const DownloadContext& context, Target target, RpcRecord record) {
  if (!context.slots.take()) {
    return new RefusedStream<v1::DownloadArtifactResponse>(
        record, to_grpc_status(server_busy("TOO_MANY_DOWNLOADS",
                                           "too many downloads at once; try again later")));
  }
  auto* stream = new DownloadArtifact(context, std::move(target), record);
  if (!context.sql.submit([stream] { stream->describe(); })) {
    stream->finish(server_busy("SERVER_BUSY", "too many calls at once; try again later"));
  }
  return stream;
}

absl::Status DownloadArtifact::find_file() {
  const absl::StatusOr<v1::Job> job = context_.jobs.get(target_.tenant, target_.job_id);
  if (!job.ok()) return job_error(job.status());
  const absl::StatusOr<std::vector<StoredFile>> files =
      context_.jobs.artifacts(target_.tenant, target_.job_id);
  if (!files.ok()) return job_error(files.status());
  const auto found = std::find_if(files->begin(), files->end(), [this](const StoredFile& file) {
    return file.name == target_.file;
  });
  if (found == files->end()) {
    return refusal(
        absl::StatusCode::kNotFound, "ARTIFACT_NOT_FOUND",
        absl::StrCat(
            "job has no artifact '", target_.file, "'; it is ", v1::JobState_Name(job->state()),
            files->empty() ? " and has no artifacts" : "; ListArtifacts names those it has"));
  }
  if (target_.offset > found->size_bytes) {
    return refusal(absl::StatusCode::kOutOfRange, "OFFSET_OUT_OF_RANGE",
                   absl::StrCat("offset ", target_.offset, " lies behind the end of '",
                                target_.file, "', which has ", found->size_bytes, " bytes"),
                   {{"size_bytes", absl::StrCat(found->size_bytes)}});
  }
  file_ = *found;
  return absl::OkStatus();
}

void DownloadArtifact::describe() {
  const absl::Status found = find_file();
  if (!found.ok()) {
    finish(found);
    return;
  }
  v1::Artifact& artifact = *response_.mutable_artifact();
  artifact.set_name(artifact_name(target_.job_id, file_.name));
  artifact.set_size_bytes(file_.size_bytes);
  artifact.set_sha256(file_.sha256);
  response_.set_offset(target_.offset);
  position_ = target_.offset;
  StartWrite(&response_);
}

void DownloadArtifact::read_chunk() {
  response_.clear_artifact();
  response_.set_offset(position_);
  std::string& content = *response_.mutable_content();
  const int64_t size = std::min(kChunkBytes, file_.size_bytes - position_);
  const absl::Status read = context_.artifacts.read(file_.key, position_, size, content);
  if (!read.ok() && !absl::IsNotFound(read)) {
    finish(read);
    return;
  }
  // A row names the file: a store that does not have it has lost all of it.
  if (content.empty()) {
    finish(refusal(absl::StatusCode::kDataLoss, "ARTIFACT_DAMAGED",
                   absl::StrCat("'", file_.name, "' ends at byte ", position_, " of ",
                                file_.size_bytes, " in the artifact store")));
    return;
  }
  position_ += static_cast<int64_t>(content.size());
  context_.bytes.Increment(static_cast<double>(content.size()));
  StartWrite(&response_);
}

void DownloadArtifact::OnWriteDone(bool ok) {
  if (!ok || cancelled_) {
    finish(absl::CancelledError("the caller went away"));
  } else if (position_ == file_.size_bytes) {
    finish(absl::OkStatus());
  } else if (!context_.disk.submit([this] { read_chunk(); })) {
    finish(server_busy("SERVER_BUSY", "too many calls at once; resume the download later"));
  }
}

void DownloadArtifact::finish(const absl::Status& status) {
  const grpc::Status sent = to_grpc_status(status);
  record_.finish(sent.error_code());
  Finish(sent);
}

void DownloadArtifact::OnDone() {
  context_.slots.give_back();
  delete this;
}

}  // namespace qaas
