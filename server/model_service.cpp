#include "server/model_service.h"

#include <memory>
#include <string>
#include <vector>

#include <absl/strings/str_cat.h>

#include "server/errors.h"
#include "server/paging.h"
#include "server/resource_names.h"
#include "server/rpc.h"

namespace qaas {
namespace {

constexpr char kListModels[] = "qaas.v1.ModelService/ListModels";
constexpr char kGetModel[] = "qaas.v1.ModelService/GetModel";

absl::Status list(const FolderRegistry& folders, const v1::ListModelsRequest& request,
                  v1::ListModelsResponse* response) {
  const PagedQuery query{.tenant = kDefaultTenant, .method = "ListModels"};
  const absl::StatusOr<int> size = page_size(request.page_size());
  if (!size.ok()) return size.status();
  const absl::StatusOr<std::string> position = page_position(query, request.page_token());
  if (!position.ok()) return position.status();
  for (const std::shared_ptr<const v1::Model>& model : folders.models()) {
    if (!position->empty() && model->name() <= *position) continue;
    if (response->models_size() == *size) {
      response->set_next_page_token(page_token(query, response->models(*size - 1).name()));
      break;
    }
    v1::Model& listed = *response->add_models();
    listed = *model;
    listed.clear_projections();
  }
  return absl::OkStatus();
}

absl::Status get(const FolderRegistry& folders, const v1::GetModelRequest& request,
                 v1::Model* response) {
  const absl::StatusOr<std::string> folder = parse_model_name(request.name(), "name");
  if (!folder.ok()) return folder.status();
  const std::shared_ptr<const v1::Model> model = folders.model(*folder);
  if (!model) {
    return refusal(
        absl::StatusCode::kNotFound, "MODEL_NOT_FOUND",
        absl::StrCat("model '", request.name(), "' does not exist; ListModels names those that do"),
        {{"model", request.name()}});
  }
  *response = *model;
  return absl::OkStatus();
}

}  // namespace

grpc::ServerUnaryReactor* ModelService::ListModels(grpc::CallbackServerContext* call,
                                                   const v1::ListModelsRequest* request,
                                                   v1::ListModelsResponse* response) {
  return run_unary_inline(
      call, RpcRecord(context_.metrics, kListModels), *request,
      [this, request, response] { return list(context_.folders, *request, response); });
}

grpc::ServerUnaryReactor* ModelService::GetModel(grpc::CallbackServerContext* call,
                                                 const v1::GetModelRequest* request,
                                                 v1::Model* response) {
  return run_unary_inline(
      call, RpcRecord(context_.metrics, kGetModel), *request,
      [this, request, response] { return get(context_.folders, *request, response); });
}

}  // namespace qaas
