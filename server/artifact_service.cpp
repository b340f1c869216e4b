#include "server/artifact_service.h"

#include <string>
#include <utility>
#include <vector>

#include <absl/strings/str_cat.h>

#include "server/download_artifact.h"
#include "server/errors.h"
#include "server/paging.h"
#include "server/resource_names.h"
#include "server/rpc.h"

namespace qaas {
namespace {

constexpr char kListArtifacts[] = "qaas.v1.ArtifactService/ListArtifacts";
constexpr char kDownloadArtifact[] = "qaas.v1.ArtifactService/DownloadArtifact";

absl::Status list(JobStore& jobs, const v1::ListArtifactsRequest& request,
                  v1::ListArtifactsResponse* response) {
  const absl::StatusOr<std::string> job_id = parse_job_name(request.parent(), "parent");
  if (!job_id.ok()) return job_id.status();
  const PagedQuery query{.tenant = kDefaultTenant, .method = "ListArtifacts", .parent = *job_id};
  const absl::StatusOr<int> size = page_size(request.page_size());
  if (!size.ok()) return size.status();
  const absl::StatusOr<std::string> position = page_position(query, request.page_token());
  if (!position.ok()) return position.status();
  const absl::StatusOr<std::vector<StoredFile>> files = jobs.artifacts(kDefaultTenant, *job_id);
  if (!files.ok()) return job_error(files.status());
  const std::string* last = nullptr;
  for (const StoredFile& file : *files) {
    if (!position->empty() && file.name <= *position) continue;
    if (response->artifacts_size() == *size) {
      response->set_next_page_token(page_token(query, *last));
      break;
    }
    v1::Artifact& artifact = *response->add_artifacts();
    artifact.set_name(artifact_name(*job_id, file.name));
    artifact.set_size_bytes(file.size_bytes);
    artifact.set_sha256(file.sha256);
    last = &file.name;
  }
  return absl::OkStatus();
}

absl::StatusOr<qaas::DownloadArtifact::Target> download_target(
    const v1::DownloadArtifactRequest& request) {
  const absl::Status known = check_known_fields(request);
  if (!known.ok()) return known;
  absl::StatusOr<ArtifactName> name = parse_artifact_name(request.name(), "name");
  if (!name.ok()) return name.status();
  if (request.offset() < 0) {
    return invalid_field("offset",
                         absl::StrCat("found ", request.offset(), "; expected 0 or more"));
  }
  return qaas::DownloadArtifact::Target{.tenant = kDefaultTenant,
                                        .job_id = std::move(name->job_id),
                                        .file = std::move(name->file),
                                        .offset = request.offset()};
}

}  // namespace

grpc::ServerUnaryReactor* ArtifactService::ListArtifacts(grpc::CallbackServerContext* call,
                                                         const v1::ListArtifactsRequest* request,
                                                         v1::ListArtifactsResponse* response) {
  return run_unary(call, RpcRecord(context_.metrics, kListArtifacts), *request, context_.sql,
                   [this, request, response] { return list(context_.jobs, *request, response); });
}

grpc::ServerWriteReactor<v1::DownloadArtifactResponse>* ArtifactService::DownloadArtifact(
    grpc::CallbackServerContext* call, const v1::DownloadArtifactRequest* request) {
  const RpcRecord record(context_.metrics, kDownloadArtifact);
  absl::StatusOr<qaas::DownloadArtifact::Target> target = download_target(*request);
  if (!target.ok()) {
    return new RefusedStream<v1::DownloadArtifactResponse>(record, to_grpc_status(target.status()));
  }
  return qaas::DownloadArtifact::start({.jobs = context_.jobs,
                                        .artifacts = context_.artifacts,
                                        .sql = context_.sql,
                                        .disk = context_.disk,
                                        .slots = context_.downloads,
                                        .bytes = context_.metrics.download_bytes()},
                                       *std::move(target), record);
}

}  // namespace qaas
