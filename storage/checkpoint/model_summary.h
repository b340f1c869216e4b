#pragma once

#include "qaas/v1/model.pb.h"
#include "storage/checkpoint/model_folder.h"

namespace qaas {

/// What the service tells of a folder: architecture, counts, sizes and projections. name, state,
/// sha256 and update_time are the caller's to set.
v1::Model summarize(const ModelFolder& folder);

}  // namespace qaas
