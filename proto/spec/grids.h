#pragma once

#include <string>

#include "qaas/v1/job_spec.pb.h"

/// Which of a spec's grids applies to a projection, as the message the caller wrote; job_spec.h has
/// the resolved numbers.
namespace qaas {

/// Index of the first override whose pattern matches projection `name`, or -1.
int override_for(const v1::JobSpec& spec, const std::string& name);

/// The grid message that applies to projection `name`: the first matching override's, else
/// spec.weights() (so too where that override only names an initializer). Null where the projection
/// keeps full precision. Points into `spec`.
const v1::WeightQuantization* grid_message_for(const v1::JobSpec& spec, const std::string& name);

/// Where projection `name` starts: the first matching override's initializer, else the spec's
/// (defaults filled in).
v1::Initializer initializer_for(const v1::JobSpec& spec, const std::string& name);

/// Path of the message grid_message_for() returns, for violations: "weights" or
/// "overrides[2].weights".
std::string grid_path_for(const v1::JobSpec& spec, const std::string& name);

/// Whether any projection starts from GPTQ: "initialisation" or an override says so. Takes a spec
/// with the initializer filled in.
bool uses_gptq(const v1::JobSpec& spec);

/// Whether any projection's range is searched, for itself or for GPTQ; as uses_gptq().
bool uses_clip_search(const v1::JobSpec& spec);

}  // namespace qaas
