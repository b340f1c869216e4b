#include "clients/cli/console.h"

#include <google/protobuf/util/json_util.h>

namespace qaas::cli {
namespace {

std::string to_json(const google::protobuf::Message& message, bool indented) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = indented;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string text;
  // Fails only for messages that hold an Any of unknown type; ours hold none.
  const google::protobuf::util::Status status =
      google::protobuf::util::MessageToJsonString(message, &text, options);
  return status.ok() ? text : "{}";
}

}  // namespace

void print_json(Console& console, const google::protobuf::Message& message) {
  console.out << to_json(message, true);
  console.out.flush();
}

void print_json_line(Console& console, const google::protobuf::Message& message) {
  console.out << to_json(message, false) << "\n";
  console.out.flush();
}

}  // namespace qaas::cli
