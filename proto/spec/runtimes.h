#pragma once

#include <string>
#include <vector>

#include "qaas/v1/forecast.pb.h"
#include "qaas/v1/job_spec.pb.h"
#include "qaas/v1/model.pb.h"

/// Which runtime loads what; shared by the files of this folder.
namespace qaas {

/// Whether `runtime` loads the artifact of `spec` (defaults filled in) made from `model`. Facts as
/// of August 2026: vLLM's one GPTQ class ignores zero points, takes 4 and 8 bits symmetric, and
/// fuses q/k/v and gate/up, which must then be quantized alike; GPTQModel takes everything. Both
/// read an 8-bit output head. None applies quantized activations: support.reason says so where the
/// weights load.
v1::RuntimeSupport runtime_support(v1::TargetRuntime runtime, const v1::JobSpec& spec,
                                   const v1::Model& model);

}  // namespace qaas
