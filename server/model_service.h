#pragma once

#include "qaas/v1/model_service.grpc.pb.h"
#include "server/services.h"

namespace qaas {

/// qaas.v1.ModelService: the models that jobs can name, from the folder registry's memory.
class ModelService final : public v1::ModelService::CallbackService {
 public:
  explicit ModelService(const ServiceContext& context) : context_(context) {}

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* call,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* call,
                                     const v1::GetModelRequest* request,
                                     v1::Model* response) override;

 private:
  const ServiceContext context_;
};

}  // namespace qaas
