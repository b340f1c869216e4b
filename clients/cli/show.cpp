#include <algorithm>
#include <ctime>

#include <absl/strings/str_cat.h>

#include "clients/cli/commands.h"
#include "clients/cli/job_text.h"
#include "clients/cli/names.h"
#include "clients/cli/queries.h"
#include "clients/cli/text.h"

namespace qaas::cli {
namespace {

std::string model_state_words(const v1::Model& model) {
  switch (model.state()) {
    case v1::Model::STATE_SCANNING:
      return "scanning";
    case v1::Model::STATE_READY:
      return "ready";
    case v1::Model::STATE_INVALID:
      return "invalid";
    default:
      return "unknown";
  }
}

std::string model_list_text(const std::vector<v1::Model>& models) {
  if (models.empty()) return "no models\n";
  Table table({"MODEL", "STATE", "KIND", "PARAMETERS", "SIZE", "REMARK"});
  for (const v1::Model& model : models) {
    const bool ready = model.state() == v1::Model::STATE_READY;
    table.add_row({printable(last_segment(model.name())), model_state_words(model),
                   printable(model.architecture()),
                   ready ? format_count(static_cast<double>(model.parameter_count())) : "",
                   ready ? format_bytes(model.size_bytes()) : "", printable(model.error())});
  }
  return table.text();
}

std::string model_text(const v1::Model& model) {
  Table table({"model", printable(model.name())});
  table.add_row({"state", model_state_words(model)});
  if (!model.error().empty()) table.add_row({"error", printable(model.error())});
  if (model.state() == v1::Model::STATE_READY) {
    table.add_row(
        {"architecture",
         absl::StrCat(printable(model.architecture()), ", ", model.block_count(), " blocks of ",
                      model.hidden_size(), ", vocabulary ", model.vocabulary_size(), ", up to ",
                      model.max_position_embeddings(), " positions")});
    table.add_row(
        {"parameters",
         absl::StrCat(format_count(static_cast<double>(model.parameter_count())), ", of them ",
                      format_count(static_cast<double>(model.non_embedding_parameter_count())),
                      " outside embedding and head")});
    table.add_row({"size", format_bytes(model.size_bytes())});
    table.add_row({"projections", absl::StrCat(model.projections_size())});
    table.add_row({"sha256", printable(model.sha256())});
  }
  return table.text();
}

}  // namespace

absl::StatusOr<ExitCode> forecast(Console& console, Connection& connection,
                                  const v1::JobSpec& spec) {
  v1::ForecastRequest request;
  *request.mutable_spec() = spec;
  const absl::StatusOr<v1::ForecastResponse> response =
      forecast_until_answered(connection, request);
  if (!response.ok()) return response.status();
  if (console.json) {
    print_json(console, *response);
  } else {
    console.out << method_words(response->spec().method()) << ", "
                << grid_words(response->spec().weights()) << ", on "
                << printable(response->spec().model()) << "\n"
                << forecast_text(response->forecast());
  }
  return ExitCode::kOk;
}

absl::StatusOr<ExitCode> list_jobs(Console& console, Connection& connection, int limit) {
  v1::ListJobsRequest request;
  v1::ListJobsResponse all;
  do {
    request.set_page_size(std::min(limit - all.jobs_size(), kPageSize));
    const absl::StatusOr<v1::ListJobsResponse> response = connection.call<v1::ListJobsResponse>(
        connection.jobs(), &v1::QuantizationService::Stub::ListJobs, request);
    if (!response.ok()) return response.status();
    all.MergeFrom(*response);
    all.set_next_page_token(response->next_page_token());
    request.set_page_token(response->next_page_token());
    if (response->jobs().empty()) break;
  } while (!request.page_token().empty() && all.jobs_size() < limit);

  if (console.json) {
    print_json(console, all);
  } else {
    console.out << job_list_text({all.jobs().begin(), all.jobs().end()}, std::time(nullptr));
    if (!all.next_page_token().empty()) console.out << "(more: raise --limit)\n";
  }
  return ExitCode::kOk;
}

absl::StatusOr<ExitCode> get_job(Console& console, Connection& connection, const std::string& job) {
  const absl::StatusOr<v1::Job> found = fetch_job(connection, job);
  if (!found.ok()) return found.status();
  if (console.json) {
    print_json(console, *found);
  } else {
    console.out << job_text(*found);
  }
  return ExitCode::kOk;
}

absl::StatusOr<ExitCode> cancel_job(Console& console, Connection& connection,
                                    const std::string& job) {
  v1::CancelJobRequest request;
  request.set_name(with_collection("jobs", job));
  const absl::StatusOr<v1::Job> cancelled = connection.call<v1::Job>(
      connection.jobs(), &v1::QuantizationService::Stub::CancelJob, request);
  if (!cancelled.ok()) return cancelled.status();
  if (console.json) {
    print_json(console, *cancelled);
  } else if (cancelled->state() == v1::JOB_STATE_CANCELLED) {
    console.out << printable(cancelled->name()) << " is cancelled\n";
  } else {
    console.out << printable(cancelled->name()) << " is " << state_words(cancelled->state())
                << "; its worker was asked to stop\n";
  }
  return ExitCode::kOk;
}

absl::StatusOr<ExitCode> show_models(Console& console, Connection& connection,
                                     const std::string& model) {
  if (!model.empty()) {
    v1::GetModelRequest request;
    request.set_name(with_collection("models", model));
    const absl::StatusOr<v1::Model> found =
        connection.call<v1::Model>(connection.models(), &v1::ModelService::Stub::GetModel, request);
    if (!found.ok()) return found.status();
    if (console.json) {
      print_json(console, *found);
    } else {
      console.out << model_text(*found);
    }
    return ExitCode::kOk;
  }
  v1::ListModelsRequest request;
  request.set_page_size(kPageSize);
  v1::ListModelsResponse all;
  for (int page = 0; page < kMostPages; ++page) {
    const absl::StatusOr<v1::ListModelsResponse> response = connection.call<v1::ListModelsResponse>(
        connection.models(), &v1::ModelService::Stub::ListModels, request);
    if (!response.ok()) return response.status();
    all.mutable_models()->MergeFrom(response->models());
    request.set_page_token(response->next_page_token());
    if (request.page_token().empty()) break;
  }
  if (console.json) {
    print_json(console, all);
  } else {
    console.out << model_list_text({all.models().begin(), all.models().end()});
  }
  return ExitCode::kOk;
}

absl::StatusOr<ExitCode> list_artifacts(Console& console, Connection& connection,
                                        const std::string& job) {
  const absl::StatusOr<std::vector<v1::Artifact>> artifacts = fetch_artifacts(connection, job);
  if (!artifacts.ok()) return artifacts.status();
  if (console.json) {
    v1::ListArtifactsResponse all;
    all.mutable_artifacts()->Add(artifacts->begin(), artifacts->end());
    print_json(console, all);
    return ExitCode::kOk;
  }
  if (artifacts->empty()) {
    console.out << "no artifacts: the job has not succeeded\n";
    return ExitCode::kOk;
  }
  Table table({"FILE", "SIZE", "SHA-256"});
  for (const v1::Artifact& artifact : *artifacts) {
    table.add_row({printable(last_segment(artifact.name())), format_bytes(artifact.size_bytes()),
                   printable(artifact.sha256())});
  }
  console.out << table.text();
  return ExitCode::kOk;
}

}  // namespace qaas::cli
