#pragma once

#include <vector>

#include <google/protobuf/message.h>

#include "proto/spec/job_spec.h"

namespace qaas {

/// The fields of `message`, at any depth, that this build's protos do not have. A field a newer
/// client sets is a wish this server cannot honour, and must not be dropped in silence. At most 16.
std::vector<FieldViolation> unknown_fields(const google::protobuf::Message& message);

}  // namespace qaas
