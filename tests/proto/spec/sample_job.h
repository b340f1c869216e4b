#pragma once

#include <string>

#include <absl/strings/str_cat.h>

#include "qaas/v1/job_spec.pb.h"
#include "qaas/v1/model.pb.h"

namespace qaas::testing {

/// The shortest valid EfficientQAT job: required fields only.
inline v1::JobSpec minimal_spec(int bits = 4) {
  v1::JobSpec spec;
  spec.set_model("models/small");
  spec.set_method(v1::METHOD_EFFICIENT_QAT);
  spec.mutable_weights()->set_bits(bits);
  spec.mutable_calibration()->set_dataset("datasets/text");
  spec.mutable_evaluation()->set_dataset("datasets/held-out");
  return spec;
}

/// The shortest valid round-to-nearest job.
inline v1::JobSpec round_to_nearest_spec(int bits = 4) {
  v1::JobSpec spec = minimal_spec(bits);
  spec.set_method(v1::METHOD_ROUND_TO_NEAREST);
  spec.clear_calibration();
  return spec;
}

inline void add_projection(v1::Model& model, const std::string& name, int outputs, int inputs) {
  v1::ProjectionShape* projection = model.add_projections();
  projection->set_name(name);
  projection->set_output_size(outputs);
  projection->set_input_size(inputs);
}

/// A Llama with grouped-query attention and a tied head, in 16-bit floats.
inline v1::Model llama(int blocks, int hidden, int intermediate, int vocabulary, int key_values) {
  v1::Model model;
  model.set_name("models/small");
  model.set_state(v1::Model::STATE_READY);
  model.set_architecture("llama");
  model.set_block_count(blocks);
  model.set_hidden_size(hidden);
  model.set_vocabulary_size(vocabulary);
  model.set_max_position_embeddings(256);
  int64_t weights = hidden;
  for (int i = 0; i < blocks; ++i) {
    const std::string block = absl::StrCat("model.layers.", i, ".");
    add_projection(model, block + "self_attn.q_proj", hidden, hidden);
    add_projection(model, block + "self_attn.k_proj", key_values, hidden);
    add_projection(model, block + "self_attn.v_proj", key_values, hidden);
    add_projection(model, block + "self_attn.o_proj", hidden, hidden);
    add_projection(model, block + "mlp.gate_proj", intermediate, hidden);
    add_projection(model, block + "mlp.up_proj", intermediate, hidden);
    add_projection(model, block + "mlp.down_proj", hidden, intermediate);
    weights += 2 * hidden + 2LL * hidden * hidden + 2LL * key_values * hidden +
               3LL * hidden * intermediate;
  }
  model.set_non_embedding_parameter_count(weights);
  model.set_parameter_count(weights + static_cast<int64_t>(vocabulary) * hidden);
  model.set_size_bytes(2 * model.parameter_count());
  return model;
}

/// The demo model's shape: 4 blocks of 256 and 768.
inline v1::Model small_model() { return llama(4, 256, 768, 2048, 128); }

}  // namespace qaas::testing
