#include <algorithm>
#include <string>
#include <vector>

#include <absl/strings/str_cat.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/unknown_field_set.h>

#include "proto/spec/field_checks.h"
#include "proto/spec/job_spec.h"

namespace qaas {
namespace {

// A field number this program does not know is a wish it cannot honour: a newer client must hear
// of it rather than get a job without it.
void check_unknown_fields(const google::protobuf::Message& message, const std::string& path,
                          FieldChecks& checks) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const google::protobuf::UnknownFieldSet& unknown = reflection.GetUnknownFields(message);
  if (!unknown.empty()) {
    checks.add(path.empty() ? absl::StrCat("#", unknown.field(0).number())
                            : absl::StrCat(path, ".#", unknown.field(0).number()),
               absl::StrCat("field number ", unknown.field(0).number(), " of ",
                            message.GetDescriptor()->name(),
                            " is unknown here; leave it out, or use a newer service"));
  }
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const google::protobuf::FieldDescriptor* field : fields) {
    if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    const std::string field_path =
        path.empty() ? field->name() : absl::StrCat(path, ".", field->name());
    if (!field->is_repeated()) {
      check_unknown_fields(reflection.GetMessage(message, field), field_path, checks);
      continue;
    }
    const int count = std::min(reflection.FieldSize(message, field), kMostPatterns);
    for (int i = 0; i < count; ++i) {
      check_unknown_fields(reflection.GetRepeatedMessage(message, field, i),
                           absl::StrCat(field_path, "[", i, "]"), checks);
    }
  }
}

}  // namespace

std::vector<FieldViolation> validate(const v1::JobSpec& spec) {
  FieldChecks checks;
  check_unknown_fields(spec, "", checks);
  checks.name("model", "models", spec.model());
  if (spec.method() == v1::METHOD_UNSPECIFIED) {
    checks.add("method",
               absl::StrCat("missing; accepted: ", enumerators(*v1::Method_descriptor())));
  } else {
    checks.enumerator("method", spec.method(), *v1::Method_descriptor());
  }
  const v1::JobSpec full = with_defaults(spec, v1::Model());
  check_quantization(spec, full, checks);
  check_data(spec, checks);
  check_training(spec, full, checks);
  if (spec.has_pretraining_tokens() && spec.pretraining_tokens() < 1) {
    checks.add("pretraining_tokens",
               absl::StrCat("found ", spec.pretraining_tokens(), "; accepted: 1 or more"));
  }
  return checks.take();
}

}  // namespace qaas
