#include "server/quantization_service.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include <absl/strings/str_cat.h>

#include "server/errors.h"
#include "server/job_submission.h"
#include "server/paging.h"
#include "server/resource_names.h"
#include "server/rpc.h"
#include "server/watch_job.h"
#include "telemetry/logging.h"

namespace qaas {
namespace {

constexpr char kSubmitJob[] = "qaas.v1.QuantizationService/SubmitJob";
constexpr char kGetJob[] = "qaas.v1.QuantizationService/GetJob";
constexpr char kListJobs[] = "qaas.v1.QuantizationService/ListJobs";
constexpr char kWatchJob[] = "qaas.v1.QuantizationService/WatchJob";
constexpr char kCancelJob[] = "qaas.v1.QuantizationService/CancelJob";
constexpr char kForecast[] = "qaas.v1.QuantizationService/Forecast";

// gRPC clients refuse messages of more than 4 MiB unless told otherwise.
constexpr size_t kMostListBytes = 3 << 20;

absl::Status answer(absl::StatusOr<v1::Job> job, v1::Job* response) {
  if (!job.ok()) return job_error(job.status());
  *response = *std::move(job);
  return absl::OkStatus();
}

absl::Status submit(const ServiceContext& context, const v1::SubmitJobRequest& request,
                    v1::Job* response) {
  const absl::Status request_id = check_request_id(request.request_id());
  if (!request_id.ok()) return request_id;
  const absl::StatusOr<std::string> fingerprint = request_fingerprint(request);
  if (!fingerprint.ok()) return fingerprint.status();
  // A retry must find its job even if the model has changed or gone since.
  if (!request.request_id().empty() && !request.validate_only()) {
    absl::StatusOr<std::optional<v1::Job>> earlier =
        context.jobs.find_submitted(kDefaultTenant, request.request_id(), *fingerprint);
    if (!earlier.ok()) return job_error(earlier.status());
    if (earlier->has_value()) {
      *response = std::move(**earlier);
      return absl::OkStatus();
    }
  }
  absl::StatusOr<v1::Job> job = prepare_job(request.spec(), context.folders);
  if (!job.ok()) return job.status();
  job->set_request_id(request.request_id());
  if (request.validate_only()) {
    *response = *std::move(job);
    return absl::OkStatus();
  }
  const absl::Status stored =
      answer(context.jobs.submit(kDefaultTenant, *job, *fingerprint), response);
  if (stored.ok()) {
    const absl::StatusOr<std::string> id = parse_job_name(response->name(), "name");
    log_info("job submitted",
             {.job = id.value_or(response->name()), .request_id = request.request_id()});
  }
  return stored;
}

absl::Status list(const ServiceContext& context, const v1::ListJobsRequest& request,
                  v1::ListJobsResponse* response) {
  const PagedQuery query{.tenant = kDefaultTenant, .method = "ListJobs"};
  const absl::StatusOr<int> size = page_size(request.page_size());
  if (!size.ok()) return size.status();
  const absl::StatusOr<std::string> position = page_position(query, request.page_token());
  if (!position.ok()) return position.status();
  for (int count = *size;; count = std::max(1, count / 2)) {
    absl::StatusOr<JobStore::Page> page = context.jobs.list(kDefaultTenant, count, *position);
    if (!page.ok()) return page.status();
    response->Clear();
    for (v1::Job& job : page->jobs) *response->add_jobs() = std::move(job);
    response->set_next_page_token(page_token(query, page->next));
    // Large specs make large jobs: a page may hold fewer than asked for (AIP-158).
    if (count == 1 || response->ByteSizeLong() <= kMostListBytes) return absl::OkStatus();
  }
}

absl::StatusOr<WatchJob::Target> watch_target(const v1::WatchJobRequest& request) {
  const absl::Status known = check_known_fields(request);
  if (!known.ok()) return known;
  absl::StatusOr<std::string> job_id = parse_job_name(request.name(), "name");
  if (!job_id.ok()) return job_id.status();
  if (request.after_event() < 0) {
    return invalid_field("after_event",
                         absl::StrCat("found ", request.after_event(), "; expected 0 or more"));
  }
  return WatchJob::Target{
      .tenant = kDefaultTenant, .job_id = *std::move(job_id), .after_event = request.after_event()};
}

}  // namespace

grpc::ServerUnaryReactor* QuantizationService::SubmitJob(grpc::CallbackServerContext* call,
                                                         const v1::SubmitJobRequest* request,
                                                         v1::Job* response) {
  return run_unary(call, RpcRecord(context_.metrics, kSubmitJob), *request, context_.sql,
                   [this, request, response] { return submit(context_, *request, response); });
}

grpc::ServerUnaryReactor* QuantizationService::GetJob(grpc::CallbackServerContext* call,
                                                      const v1::GetJobRequest* request,
                                                      v1::Job* response) {
  return run_unary(call, RpcRecord(context_.metrics, kGetJob), *request, context_.sql,
                   [this, request, response] {
                     const absl::StatusOr<std::string> id = parse_job_name(request->name(), "name");
                     if (!id.ok()) return id.status();
                     return answer(context_.jobs.get(kDefaultTenant, *id), response);
                   });
}

grpc::ServerUnaryReactor* QuantizationService::ListJobs(grpc::CallbackServerContext* call,
                                                        const v1::ListJobsRequest* request,
                                                        v1::ListJobsResponse* response) {
  return run_unary(call, RpcRecord(context_.metrics, kListJobs), *request, context_.sql,
                   [this, request, response] { return list(context_, *request, response); });
}

grpc::ServerWriteReactor<v1::WatchJobResponse>* QuantizationService::WatchJob(
    grpc::CallbackServerContext* call, const v1::WatchJobRequest* request) {
  const RpcRecord record(context_.metrics, kWatchJob);
  absl::StatusOr<qaas::WatchJob::Target> target = watch_target(*request);
  if (!target.ok()) {
    return new RefusedStream<v1::WatchJobResponse>(record, to_grpc_status(target.status()));
  }
  return qaas::WatchJob::start(context_.jobs, context_.events, *std::move(target), record);
}

grpc::ServerUnaryReactor* QuantizationService::CancelJob(grpc::CallbackServerContext* call,
                                                         const v1::CancelJobRequest* request,
                                                         v1::Job* response) {
  return run_unary(call, RpcRecord(context_.metrics, kCancelJob), *request, context_.sql,
                   [this, request, response] {
                     const absl::StatusOr<std::string> id = parse_job_name(request->name(), "name");
                     if (!id.ok()) return id.status();
                     const absl::Status asked =
                         answer(context_.jobs.request_cancel(kDefaultTenant, *id), response);
                     if (asked.ok()) log_info("cancel requested", {.job = *id});
                     return asked;
                   });
}

// No SQL, but matching many patterns against a large model takes longer than a gRPC thread may: it
// runs where SubmitJob does the same.
grpc::ServerUnaryReactor* QuantizationService::Forecast(grpc::CallbackServerContext* call,
                                                        const v1::ForecastRequest* request,
                                                        v1::ForecastResponse* response) {
  return run_unary(call, RpcRecord(context_.metrics, kForecast), *request, context_.sql,
                   [this, request, response] {
                     absl::StatusOr<v1::Job> job = prepare_job(request->spec(), context_.folders);
                     if (!job.ok()) return job.status();
                     *response->mutable_forecast() = std::move(*job->mutable_forecast());
                     *response->mutable_spec() = std::move(*job->mutable_spec());
                     return absl::OkStatus();
                   });
}

}  // namespace qaas
