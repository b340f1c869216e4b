#include "storage/database/job_row.h"

#include <array>
#include <cstdlib>
#include <map>
#include <unistd.h>
#include <utility>

#include <absl/status/status.h>
#include <absl/strings/ascii.h>
#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <google/protobuf/util/json_util.h>

namespace qaas {
namespace {

constexpr size_t kLongestText = 8192;

constexpr std::array<std::pair<v1::JobState, const char*>, 6> kStateNames = {{
    {v1::JOB_STATE_QUEUED, "queued"},
    {v1::JOB_STATE_RUNNING, "running"},
    {v1::JOB_STATE_SUCCEEDED, "succeeded"},
    {v1::JOB_STATE_FAILED, "failed"},
    {v1::JOB_STATE_CANCELLED, "cancelled"},
    {v1::JOB_STATE_PAUSED, "paused"},
}};

// Bytes of the well-formed UTF-8 character at `position` (Unicode table 3-7), 0 if there is none.
size_t character_length(absl::string_view text, size_t position) {
  const auto byte = [&](size_t offset) -> unsigned {
    return position + offset < text.size() ? static_cast<unsigned char>(text[position + offset])
                                           : 0U;
  };
  const auto continues = [&](size_t offset) { return (byte(offset) & 0xC0U) == 0x80U; };
  const unsigned first = byte(0);
  if (first == 0) return 0;
  if (first < 0x80) return 1;
  if (first < 0xC2) return 0;
  if (first < 0xE0) return continues(1) ? 2 : 0;
  if (first < 0xF0) {
    const bool overlong = first == 0xE0 && byte(1) < 0xA0;
    const bool surrogate = first == 0xED && byte(1) >= 0xA0;
    return !overlong && !surrogate && continues(1) && continues(2) ? 3 : 0;
  }
  const bool out_of_range =
      (first == 0xF0 && byte(1) < 0x90) || (first == 0xF4 && byte(1) >= 0x90) || first > 0xF4;
  return !out_of_range && continues(1) && continues(2) && continues(3) ? 4 : 0;
}

std::string storable_text(absl::string_view text) {
  std::string shortened;
  if (text.size() > kLongestText) {
    shortened = absl::StrCat(text.substr(0, kLongestText / 2), " [...] ",
                             text.substr(text.size() - kLongestText / 2));
    text = shortened;
  }
  std::string result;
  for (size_t position = 0; position < text.size();) {
    const size_t length = character_length(text, position);
    absl::StrAppend(&result, length == 0 ? "?" : text.substr(position, length));
    position += length == 0 ? 1 : length;
  }
  return result;
}

absl::Status unreadable(const char* column, absl::string_view why) {
  return absl::InternalError(absl::StrCat("database column '", column, "': ", why));
}

}  // namespace

absl::StatusOr<std::string> to_json(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(message.GetTypeName(), " has no JSON form: ", status.ToString()));
  }
  return json;
}

absl::Status from_json(absl::string_view json, const char* column,
                       google::protobuf::Message& message) {
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  const auto status =
      google::protobuf::util::JsonStringToMessage(std::string(json), &message, options);
  return status.ok() ? absl::OkStatus() : unreadable(column, status.ToString());
}

std::string to_hex(const google::protobuf::Message& message) {
  return absl::BytesToHexString(message.SerializeAsString());
}

absl::Status from_hex(absl::string_view hex, const char* column,
                      google::protobuf::Message& message) {
  if (message.ParseFromString(absl::HexStringToBytes(hex))) return absl::OkStatus();
  return unreadable(column, absl::StrCat("not a ", message.GetTypeName()));
}

std::string to_array(const std::vector<std::string>& texts) {
  std::string array = "{";
  for (const std::string& text : texts) {
    absl::StrAppend(&array, array.size() == 1 ? "\"" : ",\"",
                    absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"\"", "\\\""}}), "\"");
  }
  return array + "}";
}

google::protobuf::Timestamp to_timestamp(int64_t microseconds) {
  google::protobuf::Timestamp time;
  time.set_seconds(microseconds / 1000000);
  time.set_nanos(static_cast<int32_t>(microseconds % 1000000) * 1000);
  return time;
}

const char* state_name(v1::JobState state) {
  for (const auto& [value, name] : kStateNames) {
    if (value == state) return name;
  }
  return "";
}

v1::JobState state_from_name(absl::string_view name) {
  for (const auto& [value, known] : kStateNames) {
    if (known == name) return value;
  }
  return v1::JOB_STATE_UNSPECIFIED;
}

absl::StatusOr<v1::Job> job_from_row(const pqxx::row& row) {
  v1::Job job;
  job.set_name(absl::StrCat("jobs/", row["id"].c_str()));
  job.set_state(state_from_name(row["state"].c_str()));
  job.set_request_id(row["request_id"].c_str());
  job.set_attempt(row["attempt"].as<int>());
  job.set_failures(row["failures"].as<int>());
  job.set_cancel_requested(absl::string_view(row["requested"].c_str()) == "cancel");
  job.set_model_digest(row["model_digest"].c_str());
  job.set_last_event(row["last_event"].as<int64_t>());

  const auto read = [&](const char* column, const auto& parse, auto* (v1::Job::*field)()) {
    return row[column].is_null() ? absl::OkStatus()
                                 : parse(row[column].c_str(), column, *(job.*field)());
  };
  for (const absl::Status& status : {read("spec", from_json, &v1::Job::mutable_spec),
                                     read("forecast", from_json, &v1::Job::mutable_forecast),
                                     read("evaluation", from_json, &v1::Job::mutable_evaluation),
                                     read("failure", from_json, &v1::Job::mutable_failure),
                                     read("progress", from_hex, &v1::Job::mutable_progress)}) {
    if (!status.ok()) return status;
  }

  *job.mutable_create_time() = to_timestamp(row["create_us"].as<int64_t>());
  *job.mutable_update_time() = to_timestamp(row["update_us"].as<int64_t>());
  if (!row["start_us"].is_null()) {
    *job.mutable_start_time() = to_timestamp(row["start_us"].as<int64_t>());
  }
  if (!row["end_us"].is_null()) {
    *job.mutable_end_time() = to_timestamp(row["end_us"].as<int64_t>());
  }
  return job;
}

StoredFile file_from_row(const pqxx::row& row) {
  return {.name = row["name"].c_str(),
          .key = row["key"].c_str(),
          .size_bytes = row["size_bytes"].as<int64_t>(),
          .sha256 = row["sha256"].c_str()};
}

v1::Failure storable(const v1::Failure& failure) {
  v1::Failure result = failure;
  result.set_code(storable_text(failure.code()));
  result.set_message(storable_text(failure.message()));
  result.set_position(storable_text(failure.position()));
  return result;
}

bool is_uuid(absl::string_view text) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? text[i] != '-' : !absl::ascii_isxdigit(static_cast<unsigned char>(text[i]))) {
      return false;
    }
  }
  return true;
}

std::string random_uuid() {
  std::string bytes(16, '\0');
  // Fails only where the kernel has no random source at all.
  if (getentropy(bytes.data(), bytes.size()) != 0) std::abort();
  bytes[6] = static_cast<char>((static_cast<unsigned char>(bytes[6]) & 0x0FU) | 0x40U);
  bytes[8] = static_cast<char>((static_cast<unsigned char>(bytes[8]) & 0x3FU) | 0x80U);
  const std::string hex = absl::BytesToHexString(bytes);
  return absl::StrCat(hex.substr(0, 8), "-", hex.substr(8, 4), "-", hex.substr(12, 4), "-",
                      hex.substr(16, 4), "-", hex.substr(20));
}

v1::JobEvent state_changed(v1::JobState state, const std::string& reason) {
  v1::JobEvent event;
  event.mutable_state_changed()->set_state(state);
  event.mutable_state_changed()->set_reason(reason);
  return event;
}

}  // namespace qaas
