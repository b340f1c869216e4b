#include "server/unknown_fields.h"

#include <string>

#include <absl/strings/str_cat.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/unknown_field_set.h>

namespace qaas {
namespace {

constexpr size_t kMost = 16;

void collect(const google::protobuf::Message& message, const std::string& prefix,
             std::vector<FieldViolation>& found) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const google::protobuf::UnknownFieldSet& unknown = reflection.GetUnknownFields(message);
  for (int i = 0; i < unknown.field_count() && found.size() < kMost; ++i) {
    const int number = unknown.field(i).number();
    found.push_back({.field = absl::StrCat(prefix, "#", number),
                     .description = absl::StrCat("field number ", number, " of ",
                                                 message.GetDescriptor()->name(),
                                                 " is unknown here; leave it out, or use a newer "
                                                 "service")});
  }
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const google::protobuf::FieldDescriptor* field : fields) {
    if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    const std::string path = absl::StrCat(prefix, field->name());
    if (!field->is_repeated()) {
      collect(reflection.GetMessage(message, field), absl::StrCat(path, "."), found);
      continue;
    }
    const int count = reflection.FieldSize(message, field);
    for (int i = 0; i < count && found.size() < kMost; ++i) {
      collect(reflection.GetRepeatedMessage(message, field, i), absl::StrCat(path, "[", i, "]."),
              found);
    }
  }
}

}  // namespace

std::vector<FieldViolation> unknown_fields(const google::protobuf::Message& message) {
  std::vector<FieldViolation> found;
  collect(message, "", found);
  return found;
}

}  // namespace qaas
