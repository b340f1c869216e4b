#include "workers/engine/job/generated_text.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <absl/strings/str_format.h>

#include "workers/engine/job/artifact.h"
#include "workers/engine/job/available_memory.h"
#include "workers/engine/model/compute_type.h"

namespace qaas {
namespace {

/// A weight in the compute type alone: half of what DenseProjection holds, which keeps float32 too.
class ComputeProjection : public Projection {
 public:
  explicit ComputeProjection(torch::Tensor weight) : weight_(std::move(weight)) {}
  torch::Tensor forward(const torch::Tensor& x) override { return torch::mm(x, weight_.t()); }
  int64_t output_size() const override { return weight_.size(0); }
  torch::Tensor effective_weight() override { return weight_.to(torch::kFloat32); }

 private:
  torch::Tensor weight_;  // [out, in] in the compute type
};

}  // namespace

absl::Status check_generation_memory(const ModelConfig& config, const GenerationOptions& options,
                                     int64_t available_bytes) {
  const int64_t needed = generation_bytes(config, options);
  if (needed <= available_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrFormat(
      "calibration.generated: writing text takes all blocks at once, %.2f GB of memory with %d "
      "sequences of %d tokens side by side, but %.2f GB are free; accepted: a dataset, or a "
      "machine with more memory",
      double(needed) / 1e9, sequences_at_once(config, options), options.length,
      double(available_bytes) / 1e9));
}

absl::StatusOr<torch::Tensor> generated_windows(const ModelFolder& model,
                                                const v1::DataSelection& selection, uint64_t seed,
                                                std::stop_token stop) {
  const ModelConfig& config = model.config();
  const GenerationOptions options{.sequences = selection.samples(),
                                  .length = selection.sequence_length(),
                                  .greedy_tokens = selection.generated().greedy_tokens(),
                                  .temperature = selection.generated().temperature(),
                                  .seed = seed,
                                  .compute = training_compute_type()};
  if (const absl::Status status = check_generation_memory(config, options, available_memory());
      !status.ok()) {
    return status;
  }
  const TensorSource tensors = source_tensors(model);
  std::vector<DecoderBlock> blocks;
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    if (stop.stop_requested()) return absl::CancelledError("writing text was stopped");
    absl::StatusOr<DecoderBlock> block = load_block(config, tensors, i);
    if (!block.ok()) return block.status();
    (*block)->rewrite_projections(
        [&](const std::string&, const std::shared_ptr<Projection>& dense) {
          return std::make_shared<ComputeProjection>(dense->effective_weight().to(options.compute));
        });
    blocks.push_back(*std::move(block));
  }
  return generate_text(
      config, load_ends(config, tensors), blocks, options, [](double) {}, stop);
}

}  // namespace qaas
