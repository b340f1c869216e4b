#pragma once

#include "qaas/v1/forecast.pb.h"
#include "qaas/v1/job_spec.pb.h"
#include "qaas/v1/model.pb.h"

/// What a job will cost in quality and space, before it runs. Laws: laws.h; bytes and runtimes:
/// proto/spec. Links neither gRPC nor the database.
namespace qaas {

/// The forecast of `spec` on `model`. Pass the spec as the caller wrote it (valid, defaults not
/// filled in): a missing pretraining_tokens marks D as assumed. `model` must carry its projections.
///
/// Methods that train are predicted by chen2025 where all quantized weights have 4 bits (by its row
/// for 4-bit activations where those are asked for), other widths by kumar2024; GPTQ, and
/// round-to-nearest, always the baseline too, by ouyang2024 at 2 to 4 bits. Where no
/// law covers the job, `error` is absent and a note says why.
v1::Forecast make_forecast(const v1::JobSpec& spec, const v1::Model& model);

}  // namespace qaas
