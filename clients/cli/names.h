#pragma once

#include <string>

namespace qaas::cli {

/// "jobs/x" for both "x" and "jobs/x" in collection "jobs"; empty stays empty.
std::string with_collection(const std::string& collection, const std::string& name);

/// What follows the last "/": "x" for "jobs/x".
std::string last_segment(const std::string& name);

/// True if `name`, which a server sent, may become a file in a folder of the user's choice: no
/// separators, no control characters, not hidden, not "..", at most 200 bytes.
bool is_plain_file_name(const std::string& name);

/// A random UUID (version 4), from the system's random source.
std::string random_uuid();

}  // namespace qaas::cli
