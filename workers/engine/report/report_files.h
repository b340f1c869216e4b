#pragma once

#include <filesystem>
#include <string>

#include <absl/status/statusor.h>

#include "qaas/v1/report.pb.h"

namespace qaas {

inline constexpr char kReportJsonFile[] = "report.json";
inline constexpr char kReportPageFile[] = "report.html";

/// Indented proto JSON with the proto's field names. Numbers that are 0 are left out, 64-bit ones
/// are strings: proto JSON's rules. kInternal where the message cannot be written so.
absl::StatusOr<std::string> report_json(const google::protobuf::Message& message);

/// Writes report.json and report.html into `folder`, which exists. Either file is replaced as a
/// whole. kResourceExhausted when the disk is full; kUnavailable for other failures.
absl::Status write_report(const v1::RunReport& run, const std::filesystem::path& folder);

/// Writes report.html alone.
absl::Status write_report_page(const v1::RunReport& run, const std::filesystem::path& folder);

/// The report in `folder`'s report.json. Fields this version does not know are passed over.
/// kNotFound where there is none; kInvalidArgument, naming the file, where it is not one.
absl::StatusOr<v1::RunReport> read_report(const std::filesystem::path& folder);

}  // namespace qaas
