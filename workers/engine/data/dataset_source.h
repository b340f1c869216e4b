#pragma once

#include <filesystem>
#include <string>

#include <absl/status/statusor.h>

namespace qaas {

/// Where a dataset's text comes from, as its folder's dataset.json declares it in the field
/// "source" (any name, compared for equality: "State of the Union addresses"). Empty where there is
/// no such file or field, or `dataset` is a single file. Two datasets of one source are alike
/// enough for training on one to adapt a model to the other. kInvalidArgument, naming the file, if
/// it is not a JSON object or "source" is not a string.
absl::StatusOr<std::string> dataset_source(const std::filesystem::path& dataset);

}  // namespace qaas
