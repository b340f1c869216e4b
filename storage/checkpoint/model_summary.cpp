#include "storage/checkpoint/model_summary.h"

namespace qaas {

v1::Model summarize(const ModelFolder& folder) {
  const ModelConfig& config = folder.config();
  v1::Model model;
  model.set_architecture(config.architecture);
  model.set_parameter_count(parameter_count(config));
  model.set_non_embedding_parameter_count(non_embedding_parameter_count(config));
  model.set_size_bytes(folder.weight_bytes());
  model.set_block_count(static_cast<int32_t>(config.num_hidden_layers));
  model.set_hidden_size(static_cast<int32_t>(config.hidden_size));
  model.set_vocabulary_size(static_cast<int32_t>(config.vocab_size));
  model.set_max_position_embeddings(static_cast<int32_t>(config.max_position_embeddings));
  for (const Projection2d& projection : decoder_projections(config)) {
    v1::ProjectionShape& shape = *model.add_projections();
    shape.set_name(projection.name);
    shape.set_output_size(static_cast<int32_t>(projection.output_size));
    shape.set_input_size(static_cast<int32_t>(projection.input_size));
  }
  return model;
}

}  // namespace qaas
