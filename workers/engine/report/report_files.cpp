#include "workers/engine/report/report_files.h"

#include <absl/strings/str_cat.h>
#include <google/protobuf/util/json_util.h>

#include "storage/checkpoint/folder_entry.h"
#include "workers/engine/exporters/artifact_files.h"
#include "workers/engine/report/report_html.h"

namespace qaas {
namespace {

// A curve takes about 30 bytes a step, and large jobs have some hundred thousand steps.
constexpr int64_t kMaxReportBytes = int64_t{256} << 20;

}  // namespace

absl::StatusOr<std::string> report_json(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.add_whitespace = true;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
  if (status.ok()) return text;
  return absl::InternalError(
      absl::StrCat(message.GetTypeName(), " cannot be written as JSON: ", status.ToString()));
}

absl::Status write_report(const v1::RunReport& run, const std::filesystem::path& folder) {
  const absl::StatusOr<std::string> json = report_json(run);
  if (!json.ok()) return json.status();
  const absl::Status status = write_file(folder / kReportJsonFile, *json);
  return status.ok() ? write_report_page(run, folder) : status;
}

absl::Status write_report_page(const v1::RunReport& run, const std::filesystem::path& folder) {
  return write_file(folder / kReportPageFile, report_html(run));
}

absl::StatusOr<v1::RunReport> read_report(const std::filesystem::path& folder) {
  const absl::StatusOr<std::string> text = read_inside(folder, kReportJsonFile, kMaxReportBytes);
  if (!text.ok()) return text.status();
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  v1::RunReport run;
  const auto status = google::protobuf::util::JsonStringToMessage(*text, &run, options);
  if (status.ok()) return run;
  return absl::InvalidArgumentError(
      absl::StrCat((folder / kReportJsonFile).string(), ": not a report: ", status.ToString()));
}

}  // namespace qaas
