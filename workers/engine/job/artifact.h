#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "qaas/v1/evaluation.pb.h"
#include "workers/engine/exporters/artifact_reader.h"
#include "workers/engine/exporters/artifact_writer.h"
#include "workers/engine/job/job_inputs.h"
#include "workers/engine/job/job_state.h"
#include "workers/engine/model/decoder.h"
#include "workers/engine/quant/quantized_block.h"

namespace qaas {

/// Tensors of a model folder; `model` must outlive what is made from them.
TensorSource source_tensors(const ModelFolder& model);

/// What the artifact's bytes may depend on besides the spec: threads, compute type, CPU, as compact
/// JSON.
std::string host_description(torch::ScalarType compute);

/// Writes everything of the artifact but the manifest into the run's `out` folder: the finished
/// blocks, the state's ends as far as they are no longer the source's own, and from the source what
/// was not trained. Returns the writer, which write_manifest needs.
absl::StatusOr<ArtifactWriter> write_artifact(const JobState& state);

/// Where an artifact's bytes were made.
struct Provenance {
  std::string host;         ///< host_description of this run
  bool other_host = false;  ///< part of the work was resumed from another host's checkpoints
};

/// Adds manifest.json and returns the names of all files of the folder, sorted.
absl::StatusOr<std::vector<std::string>> write_manifest(ArtifactWriter& writer,
                                                        const JobInputs& inputs,
                                                        const v1::Evaluation& evaluation,
                                                        const Provenance& provenance,
                                                        const std::filesystem::path& folder);

/// An artifact folder as read back from disk. `ends` points into `reader`'s mapping.
struct LoadedArtifact {
  ArtifactReader reader;
  ModelEnds ends;
};
absl::StatusOr<LoadedArtifact> load_artifact(const std::filesystem::path& folder);

/// Block `index` of an artifact, packed; from nothing but its files.
absl::StatusOr<DecoderBlock> load_artifact_block(const ArtifactReader& reader, int64_t index);

}  // namespace qaas
