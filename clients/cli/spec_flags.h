#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <CLI/App.hpp>
#include <absl/status/statusor.h>

#include "qaas/v1/job_spec.pb.h"

namespace qaas::cli {

/// The flags of `submit` and `forecast` that describe a job. Unset ones leave the spec as it is.
struct SpecFlags {
  std::string spec_file;  ///< proto JSON of a JobSpec; "-" is standard input
  std::optional<std::string> model;
  std::optional<std::string> method;
  std::optional<std::string> preset;
  std::optional<int> bits;
  std::optional<std::string> group_size;
  bool symmetric = false;
  bool asymmetric = false;
  std::vector<std::string> kept;  ///< patterns of projections that keep full precision
  std::optional<std::string> initializer;
  bool rotate = false;
  std::optional<int> activations;  ///< bits
  std::optional<double> average_bits;
  std::optional<std::string> objective;
  std::vector<std::string> frozen;  ///< patterns of projections that end-to-end training leaves
  bool ov_freeze = false;
  bool signal_report = false;
  std::vector<std::string> targets;
  std::optional<std::string> calibration;
  std::optional<std::string> evaluation;
  std::vector<std::string> further_evaluations;
  std::vector<std::string> tasks;
  std::optional<int> samples;
  std::optional<int> evaluation_samples;
  std::optional<int> sequence_length;
  std::optional<uint64_t> seed;
  std::optional<int64_t> pretraining_tokens;
  std::optional<int> block_ap_epochs;
  std::optional<int> e2e_qp_epochs;
};

/// Adds the flags to `command`; parsing fills `flags`, which must outlive it.
void add_spec_flags(CLI::App& command, SpecFlags& flags);

/// The spec of --spec with the flags put over it. Values are checked by the server;
/// kInvalidArgument here for a file that is no JobSpec (with the reason), kNotFound for one that
/// cannot be read.
absl::StatusOr<v1::JobSpec> build_spec(const SpecFlags& flags);

}  // namespace qaas::cli
