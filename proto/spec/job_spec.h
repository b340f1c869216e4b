#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "qaas/v1/forecast.pb.h"
#include "qaas/v1/job_spec.pb.h"
#include "qaas/v1/model.pb.h"

/// What a job spec means, once for all programs: defaults, what is valid, and what follows from it
/// for each projection. No torch, no database, no gRPC.
namespace qaas {

/// One thing wrong with a spec. `field` is the path in the message ("weights.group_size");
/// `description` says what was found and what is accepted.
struct FieldViolation {
  std::string field;
  std::string description;
};

/// Checks a spec by itself: required fields, ranges, contradictions, resource names, size limits.
/// Empty when valid. Checks what the caller wrote, so call it before with_defaults.
std::vector<FieldViolation> validate(const v1::JobSpec& spec);

/// Checks a valid spec against the model it names: group sizes divide the inputs of each projection
/// (the first offender is named), override patterns match something, sequence lengths fit, the
/// layout can hold every projection, each target runtime can load the result. Takes the spec as the
/// caller wrote it or with defaults filled in.
std::vector<FieldViolation> validate_for_model(const v1::JobSpec& spec, const v1::Model& model);

/// The spec with every default written out, as documented in job_spec.proto. Defaults depend on
/// the bit width and, for lengths and pretraining_tokens, on the model. Applying it twice changes
/// nothing, and the result of a valid spec is valid. Left out where no value exists yet: `samples`
/// (how many windows a dataset holds is known only where it is read), begin_of_sequence (the
/// tokenizer decides), calibration and stage options of a method without them, warmup_ratio of a
/// constant schedule, options of GPTQ where nothing uses it, of objectives other than the chosen.
v1::JobSpec with_defaults(const v1::JobSpec& spec, const v1::Model& model);

/// Whether anything in `spec`, defaults filled in or not, reads calibration text.
bool reads_calibration(const v1::JobSpec& spec);

/// The grid of one projection: bits 0 means it keeps full precision.
struct ProjectionGrid {
  int bits = 0;
  int64_t group_size = 0;  ///< resolved: -1 has become the projection's input size
  bool symmetric = false;
};

/// The grid of projection `name` with `input_size` inputs under `spec` (defaults filled in):
/// the first matching override, else spec.weights().
ProjectionGrid grid_for(const v1::JobSpec& spec, const std::string& name, int64_t input_size);

/// Whether `pattern` ("*" matches any run of characters) matches the whole of `name`.
bool pattern_matches(const std::string& pattern, const std::string& name);

/// What one stage of a run holds at its peak.
struct StageMemory {
  std::string stage;    ///< "scoring", "initialisation", "block training", "end-to-end training"
  int64_t bytes = 0;    ///< anonymous memory, activation caches left out
  bool caches = false;  ///< whether the activation caches stand beside it
};

/// Bytes, and runtimes, that follow from a spec (defaults filled in) before it runs.
struct Footprint {
  int64_t original_bytes = 0;
  /// Weight file in GPTQ layout: codes, fp16 scales, zero points (stored for symmetric grids too),
  /// int32 g_idx, the other tensors in the original's precision, and the header, which is
  /// estimated.
  int64_t artifact_bytes = 0;
  /// Mean over quantized weights of what the file stores for one: bits + (bits + 16) / group_size.
  double bits_per_weight = 0;
  /// The engine's stages with what each needs: block-wise ones about one block with its optimizer,
  /// end-to-end training all packed blocks, or all weights with their optimizer. Pages of mapped
  /// files (the original, the artifact, spilled caches) are the kernel's to drop and not counted.
  /// Block training was measured at two sizes (tests/bench/RESULTS.md); the others are derived.
  std::vector<StageMemory> stages;
  /// Activation caches of block-wise training: two streams of all windows, in memory as far as
  /// their budget goes, beyond it in scratch files. Without `samples`, for the most windows a job
  /// may use.
  int64_t cache_bytes = 0;
  int64_t memory_bytes = 0;  ///< the largest stage, with the caches that the budget keeps in memory
  int64_t spilled_bytes = 0;  ///< caches beyond the budget
  /// Everything written, spilled caches included: checkpoints, optimizer state, and the artifact
  /// twice, since its projections are spooled before they are written in the file's order.
  int64_t disk_bytes = 0;
  std::vector<v1::RuntimeSupport> runtimes;
};
/// `cache_budget_bytes`: of activation caches that may lie in memory.
Footprint footprint(const v1::JobSpec& spec, const v1::Model& model,
                    int64_t cache_budget_bytes = std::numeric_limits<int64_t>::max());

}  // namespace qaas
