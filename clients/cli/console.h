#pragma once

#include <ostream>
#include <string>

#include <absl/status/status.h>
#include <google/protobuf/message.h>

namespace qaas::cli {

/// Where a command writes, and in which form.
struct Console {
  std::ostream& out;  ///< results
  std::ostream& err;  ///< errors, and progress that is no result
  /// Proto JSON instead of text for people.
  bool json = false;
  /// Columns of the terminal that `out` is; 0 where it is none, then nothing is drawn over.
  int columns = 0;
};

/// Writes `message` as proto JSON with the field names of the .proto files, indented.
void print_json(Console& console, const google::protobuf::Message& message);
/// The same on one line, for streams of messages.
void print_json_line(Console& console, const google::protobuf::Message& message);

}  // namespace qaas::cli
