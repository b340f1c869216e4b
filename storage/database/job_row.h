#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <google/protobuf/message.h>
#include <google/protobuf/timestamp.pb.h>
#include <pqxx/pqxx>

#include "qaas/v1/event.pb.h"
#include "qaas/v1/job.pb.h"
#include "storage/database/job_store.h"

/// How rows become messages and messages become parameters. No statements here.
namespace qaas {

/// Proto JSON with the field names of the .proto files, for jsonb columns.
absl::StatusOr<std::string> to_json(const google::protobuf::Message& message);

/// Reads what to_json wrote; fields of a newer release are ignored. `column` names it in errors.
absl::Status from_json(absl::string_view json, const char* column,
                       google::protobuf::Message& message);

/// Serialized message as hex, for bytea columns.
std::string to_hex(const google::protobuf::Message& message);

/// Reads what to_hex wrote.
absl::Status from_hex(absl::string_view hex, const char* column,
                      google::protobuf::Message& message);

/// A PostgreSQL array of texts that need no quoting (hex, digits, UUIDs), and of any texts.
std::string to_array(const std::vector<std::string>& texts);

google::protobuf::Timestamp to_timestamp(int64_t microseconds);

/// "queued" and so on, as the enum job_state spells it.
const char* state_name(v1::JobState state);
v1::JobState state_from_name(absl::string_view name);

/// A row of QAAS_JOB_COLUMNS (statements.h).
absl::StatusOr<v1::Job> job_from_row(const pqxx::row& row);

/// A row with name, key, size_bytes and sha256.
StoredFile file_from_row(const pqxx::row& row);

/// `failure` with texts that PostgreSQL and protobuf accept: an engine's last words may hold any
/// bytes. Invalid UTF-8 and NULs become '?'; a message over 8 KiB loses its middle.
v1::Failure storable(const v1::Failure& failure);

/// Whether `text` is a UUID in its usual 8-4-4-4-12 form.
bool is_uuid(absl::string_view text);

/// A random (version 4) UUID.
std::string random_uuid();

/// The event every change of state writes.
v1::JobEvent state_changed(v1::JobState state, const std::string& reason);

}  // namespace qaas
