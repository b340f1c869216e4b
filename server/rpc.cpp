#include "server/rpc.h"

#include <utility>

#include "server/errors.h"
#include "server/unknown_fields.h"

namespace qaas {
namespace {

void finish(grpc::ServerUnaryReactor* reactor, const RpcRecord& record,
            const absl::Status& status) {
  const grpc::Status sent = to_grpc_status(status);
  record.finish(sent.error_code());
  reactor->Finish(sent);
}

}  // namespace

absl::Status check_known_fields(const google::protobuf::Message& request) {
  const std::vector<FieldViolation> unknown = unknown_fields(request);
  return unknown.empty() ? absl::OkStatus() : invalid_fields(unknown);
}

grpc::ServerUnaryReactor* run_unary(grpc::CallbackServerContext* context, RpcRecord record,
                                    const google::protobuf::Message& request, BoundedPool& pool,
                                    std::function<absl::Status()> work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::Status known = check_known_fields(request);
  if (!known.ok()) {
    finish(reactor, record, known);
    return reactor;
  }
  const bool queued = pool.submit([context, reactor, record, work = std::move(work)] {
    if (context->IsCancelled()) {
      finish(reactor, record, absl::CancelledError("the caller went away"));
    } else if (context->deadline() <= std::chrono::system_clock::now()) {
      finish(reactor, record,
             absl::DeadlineExceededError("the deadline passed before the call was served"));
    } else {
      finish(reactor, record, work());
    }
  });
  if (!queued) {
    finish(reactor, record, server_busy("SERVER_BUSY", "too many calls at once; try again later"));
  }
  return reactor;
}

grpc::ServerUnaryReactor* run_unary_inline(grpc::CallbackServerContext* context, RpcRecord record,
                                           const google::protobuf::Message& request,
                                           const std::function<absl::Status()>& work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::Status known = check_known_fields(request);
  finish(reactor, record, known.ok() ? work() : known);
  return reactor;
}

}  // namespace qaas
