#pragma once

#include "qaas/v1/artifact_service.grpc.pb.h"
#include "server/services.h"

namespace qaas {

/// qaas.v1.ArtifactService: the files of finished jobs.
class ArtifactService final : public v1::ArtifactService::CallbackService {
 public:
  explicit ArtifactService(const ServiceContext& context) : context_(context) {}

  grpc::ServerUnaryReactor* ListArtifacts(grpc::CallbackServerContext* call,
                                          const v1::ListArtifactsRequest* request,
                                          v1::ListArtifactsResponse* response) override;
  grpc::ServerWriteReactor<v1::DownloadArtifactResponse>* DownloadArtifact(
      grpc::CallbackServerContext* call, const v1::DownloadArtifactRequest* request) override;

 private:
  const ServiceContext context_;
};

}  // namespace qaas
