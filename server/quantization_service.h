#pragma once

#include "qaas/v1/quantization_service.grpc.pb.h"
#include "server/services.h"

namespace qaas {

/// qaas.v1.QuantizationService: submits, shows, watches and cancels jobs. The proto comments are
/// its contract. No method blocks a gRPC thread.
class QuantizationService final : public v1::QuantizationService::CallbackService {
 public:
  explicit QuantizationService(const ServiceContext& context) : context_(context) {}

  grpc::ServerUnaryReactor* SubmitJob(grpc::CallbackServerContext* call,
                                      const v1::SubmitJobRequest* request,
                                      v1::Job* response) override;
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* call,
                                   const v1::GetJobRequest* request, v1::Job* response) override;
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* call,
                                     const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchJobResponse>* WatchJob(
      grpc::CallbackServerContext* call, const v1::WatchJobRequest* request) override;
  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext* call,
                                      const v1::CancelJobRequest* request,
                                      v1::Job* response) override;
  grpc::ServerUnaryReactor* Forecast(grpc::CallbackServerContext* call,
                                     const v1::ForecastRequest* request,
                                     v1::ForecastResponse* response) override;

 private:
  const ServiceContext context_;
};

}  // namespace qaas
