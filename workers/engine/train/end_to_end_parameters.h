#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <absl/status/status.h>

#include "workers/engine/model/decoder.h"
#include "workers/engine/train/adamw.h"
#include "workers/engine/train/end_to_end.h"

namespace qaas {

/// What end-to-end training trains under its options, with its optimizer. While it lives,
/// requires_grad is on for that, and frozen projections (as far as their budget goes) are replaced
/// by plain matrices; when it dies all is put back.
class EndToEndParameters {
 public:
  EndToEndParameters(const ModelEnds& ends, std::vector<DecoderBlock>& blocks,
                     const EndToEndOptions& options);
  ~EndToEndParameters();
  EndToEndParameters(const EndToEndParameters&) = delete;
  EndToEndParameters& operator=(const EndToEndParameters&) = delete;

  bool empty() const { return names_.empty(); }
  /// The first block with something to train; the number of blocks if none has.
  size_t first_trained_block() const { return first_trained_block_; }

  /// AdamW::step.
  double step(double learning_rate_factor, double clip_norm);

  /// Remembers the values, in place of those remembered before; puts them back.
  void remember();
  void restore();

  /// Adds the state's tensors, which are the live ones.
  void write_to(EndToEndState& state) const;
  /// kInvalidArgument, naming the tensor, if the state is not one of these parameters.
  absl::Status read_from(const EndToEndState& state);

 private:
  void add_projection(const std::string& name, Projection& projection,
                      const EndToEndOptions& options);
  void train(const std::string& name, const torch::Tensor& parameter, const AdamWOptions& options);
  void hold_frozen(const EndToEndOptions& options);

  std::vector<DecoderBlock>& blocks_;
  size_t first_trained_block_;
  std::vector<std::string> names_;  // of the optimizer's slots, in their order
  AdamW optimizer_;
  std::vector<torch::Tensor> remembered_;  // as names_
  /// What stands behind the plain matrices: (block, projection's name) → the projection.
  std::map<std::pair<size_t, std::string>, std::shared_ptr<Projection>> held_;
};

}  // namespace qaas
