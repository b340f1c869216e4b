#pragma once

#include <filesystem>
#include <string>

#include <absl/status/statusor.h>

namespace qaas {

/// True for one to 255 letters, digits, '.', '_' and '-' that begin with a letter or digit: a name
/// that can stand as one part of a path and never leaves its folder.
bool is_plain_name(const std::string& name);

/// The file or folder a resource name stands for: "models/llama" below `root`, "models" being the
/// `collection`. kInvalidArgument for a name of another form; kNotFound if there is nothing under
/// it, or a symbolic link that leaves the root. Checked here again, although the server has
/// checked: the row may come from another build.
absl::StatusOr<std::filesystem::path> resolve_resource(const std::filesystem::path& root,
                                                       const std::string& collection,
                                                       const std::string& name);

}  // namespace qaas
