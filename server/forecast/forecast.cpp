#include "server/forecast/forecast.h"

#include <set>
#include <string>
#include <utility>

#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include "proto/spec/grids.h"
#include "proto/spec/job_spec.h"
#include "server/forecast/laws.h"

namespace qaas {
namespace {

using forecast::Range;

/// What the laws read from a job: the model's size and parameter-weighted means over its quantized
/// projections.
struct LawInputs {
  double parameters = 0;
  double tokens = 0;
  bool tokens_assumed = false;
  double bits = 0;
  double group_size = 0;
  bool whole_rows = false;    ///< some projection has one scale per output row
  bool mixed_groups = false;  ///< fixed group sizes differ
  bool mixed_bits = false;
  double kept_share = 0;  ///< of projection weights that keep full precision
  v1::JobSpec spec;       ///< defaults filled in
};

LawInputs law_inputs(const v1::JobSpec& requested, const v1::Model& model) {
  LawInputs inputs;
  inputs.spec = with_defaults(requested, model);
  const v1::JobSpec& spec = inputs.spec;
  inputs.parameters = static_cast<double>(model.non_embedding_parameter_count());
  inputs.tokens = static_cast<double>(spec.pretraining_tokens());
  inputs.tokens_assumed = !requested.has_pretraining_tokens();

  double all = 0;
  double quantized = 0;
  double bits = 0;
  double group_size = 0;
  std::set<int> widths;
  std::set<int64_t> groups;
  for (const v1::ProjectionShape& projection : model.projections()) {
    const double weights = static_cast<double>(projection.input_size()) * projection.output_size();
    all += weights;
    const ProjectionGrid grid = grid_for(spec, projection.name(), projection.input_size());
    if (grid.bits == 0) continue;
    quantized += weights;
    bits += weights * grid.bits;
    group_size += weights * grid.group_size;
    widths.insert(grid.bits);
    const bool whole_row = grid_message_for(spec, projection.name())->group_size() == -1;
    if (whole_row) inputs.whole_rows = true;
    if (!whole_row) groups.insert(grid.group_size);
  }
  if (quantized > 0) {
    inputs.bits = bits / quantized;
    inputs.group_size = group_size / quantized;
    inputs.kept_share = 1 - quantized / all;
  }
  inputs.mixed_bits = widths.size() > 1;
  inputs.mixed_groups = groups.size() + (inputs.whole_rows ? 1 : 0) > 1;
  return inputs;
}

/// Builds one Prediction; `extrapolated` follows from what is added.
class PredictionBuilder {
 public:
  PredictionBuilder(std::string source, std::string training_regime) {
    prediction_.set_source(std::move(source));
    prediction_.set_training_regime(std::move(training_regime));
  }

  void set_error(const absl::StatusOr<double>& error) {
    if (error.ok()) {
      prediction_.set_error(*error);
    } else {
      note(absl::StrCat("no prediction: ", std::string(error.status().message())));
    }
  }

  v1::PredictionInput* add_input(const char* symbol, double value, const Range& fitted) {
    v1::PredictionInput* input = prediction_.add_inputs();
    input->set_symbol(symbol);
    input->set_value(value);
    input->set_fitted_min(fitted.min);
    input->set_fitted_max(fitted.max);
    input->set_in_range(value >= fitted.min && value <= fitted.max);
    if (!input->in_range()) prediction_.set_extrapolated(true);
    return input;
  }

  void add_parameters(const LawInputs& inputs, const Range& fitted) {
    add_input("N", inputs.parameters, fitted);
  }

  void add_tokens(const LawInputs& inputs, const Range& fitted) {
    add_input("D", inputs.tokens, fitted)->set_assumed(inputs.tokens_assumed);
    if (inputs.tokens_assumed) {
      note("pretraining_tokens was not given; 20 tokens per non-embedding parameter are assumed");
    }
  }

  void add_bits(const LawInputs& inputs, const Range& fitted) {
    add_input("P", inputs.bits, fitted);
    if (inputs.mixed_bits) {
      outside_fit("projections differ in width; P is their mean, weighted by parameters");
    }
  }

  void add_kept(const LawInputs& inputs) {
    if (inputs.kept_share > 0) {
      outside_fit(
          absl::StrFormat("%.1f %% of the projection weights keep full precision; the law "
                          "takes all of them as quantized",
                          100 * inputs.kept_share));
    }
  }

  /// What of the job no law knows of. Activations are told of where the law has no place for them.
  void add_beyond(const LawInputs& inputs, bool law_knows_activations) {
    add_kept(inputs);
    if (inputs.spec.has_activations() && !law_knows_activations) {
      outside_fit(absl::StrCat("the law knows weights only; the error of ",
                               inputs.spec.activations().bits(), "-bit activations comes on top"));
    }
    if (inputs.spec.automatic().has_average_bits()) {
      outside_fit(absl::StrCat("widths will be chosen by measurement; the law takes weights.bits, ",
                               inputs.spec.weights().bits(),
                               ", for all, not automatic.average_bits"));
    }
    if (inputs.spec.lm_head_bits() > 0 || inputs.spec.embedding_bits() > 0) {
      note("the law leaves embedding and output head in full precision; 8 bits cost little there");
    }
  }

  void note(std::string text) { prediction_.add_notes(std::move(text)); }

  void outside_fit(std::string text) {
    prediction_.set_extrapolated(true);
    note(std::move(text));
  }

  v1::Prediction* operator->() { return &prediction_; }
  v1::Prediction build() && { return std::move(prediction_); }

 private:
  v1::Prediction prediction_;
};

/// The row of chen2025's table for the job's activations.
const forecast::chen2025::Row& chen_row(const v1::JobSpec& spec) {
  namespace law = forecast::chen2025;
  if (!spec.has_activations() || spec.activations().bits() != 4) return law::kW4A16;
  return spec.activations().down_proj_bits() == 8 ? law::kW4A4Fc2At8 : law::kW4A4;
}

v1::Prediction predict_chen(const LawInputs& inputs) {
  namespace law = forecast::chen2025;
  const law::Row& row = chen_row(inputs.spec);
  const bool activations = &row != &law::kW4A16;
  PredictionBuilder prediction(
      absl::StrCat("chen2025 ", row.precision),
      absl::StrCat("4-bit symmetric weights ", activations ? "and activations " : "",
                   "trained quantized from scratch, 74M to 595M parameters, 10 to 100 billion "
                   "tokens, groups of 32 to 256 and whole rows"));
  if (&row != &law::kW4A4Fc2At8) {  // no figure was published for it
    prediction->set_relative_error(activations ? law::kW4A4RelativeError
                                               : law::kW4A16RelativeError);
  }
  prediction.add_parameters(inputs, law::kFittedParameters);
  prediction.add_tokens(inputs, law::kFittedTokens);
  v1::PredictionInput* group = prediction.add_input("G", inputs.group_size, law::kFittedGroupSize);
  if (inputs.whole_rows) {
    group->set_in_range(false);
    group->set_assumed(true);
    prediction.outside_fit(
        "the paper does not say which group size stands for a whole row; the row's length is used, "
        "averaged over projections by parameters");
  }
  if (inputs.mixed_groups) {
    prediction.outside_fit(
        "projections differ in group size; G is their mean, weighted by "
        "parameters");
  }
  if (activations && inputs.spec.activations().group_size() != inputs.spec.weights().group_size()) {
    prediction.outside_fit(
        "weights and activations have groups of different sizes; the law knows one, and takes that "
        "of the weights");
  }
  prediction.add_beyond(inputs, activations);
  prediction.outside_fit(
      "the law was fitted on training from scratch; this job fine-tunes a trained model for a "
      "short "
      "while, so the published relative error does not cover it");

  const absl::StatusOr<double> error =
      law::error(row, inputs.parameters, inputs.tokens, inputs.group_size);
  prediction.set_error(error);
  if (error.ok()) {
    const absl::StatusOr<double> share = law::effective_parameter_share(inputs.parameters, *error);
    if (share.ok()) {
      prediction.note(absl::StrFormat(
          "by this law the result is worth a full-precision model of %.0f %% of the parameters",
          100 * *share));
    }
  }
  return std::move(prediction).build();
}

v1::Prediction predict_kumar(const LawInputs& inputs) {
  namespace law = forecast::kumar2024;
  PredictionBuilder prediction(
      "kumar2024 f_w",
      "weights trained quantized from scratch with one scale per output channel, 30M to 220M "
      "parameters, 1.5 to 26 billion tokens");
  prediction.add_parameters(inputs, law::kFittedParameters);
  prediction.add_tokens(inputs, law::kFittedTokens);
  prediction.add_bits(inputs, law::kFittedBits);
  prediction.add_beyond(inputs, /*law_knows_activations=*/false);
  prediction.outside_fit(
      "outside the law's fit: this job fine-tunes a trained model with a scale per group, the law "
      "knows training from scratch with a scale per channel; read it as a pessimistic bound");
  prediction.set_error(law::error(inputs.parameters, inputs.tokens, inputs.bits));
  return std::move(prediction).build();
}

/// What ouyang2024's law, fitted on GPTQ, is asked to stand for.
enum class PostTraining { kGptq, kRoundToNearest };

v1::Prediction predict_ouyang(const LawInputs& inputs, PostTraining method) {
  namespace law = forecast::ouyang2024;
  PredictionBuilder prediction(
      "ouyang2024",
      "GPTQ without training, Pythia models of 160M to 12B parameters, 1 to 206 billion tokens, 2 "
      "to 4 bits");
  prediction.add_parameters(inputs, law::kFittedParameters);
  prediction.add_tokens(inputs, law::kFittedTokens);
  prediction.add_bits(inputs, law::kFittedBits);
  prediction.add_beyond(inputs, /*law_knows_activations=*/false);
  if (method == PostTraining::kGptq) {
    prediction.note(
        "the law has no term for group size, symmetry or where GPTQ's scales come from; searched "
        "clips lose less");
  } else {
    prediction.outside_fit(
        "outside the law's fit: it was fitted on GPTQ, which loses less than plain "
        "round-to-nearest; read it as a lower bound");
  }
  prediction.set_error(law::error(inputs.parameters, inputs.tokens, inputs.bits));
  return std::move(prediction).build();
}

v1::Prediction predict_quantized(const LawInputs& inputs) {
  switch (inputs.spec.method()) {
    case v1::METHOD_ROUND_TO_NEAREST:
      return predict_ouyang(inputs, PostTraining::kRoundToNearest);
    case v1::METHOD_GPTQ:
      return predict_ouyang(inputs, PostTraining::kGptq);
    default:
      break;
  }
  const bool four_bits = !inputs.mixed_bits && inputs.bits == 4;
  v1::Prediction prediction = four_bits ? predict_chen(inputs) : predict_kumar(inputs);
  if (inputs.spec.method() == v1::METHOD_DISTILLATION_QAT) {
    prediction.add_notes(
        "no law of distillation is published: this is the one of training on the text itself, and "
        "its loss is not what distillation minimises");
  }
  return prediction;
}

}  // namespace

v1::Forecast make_forecast(const v1::JobSpec& spec, const v1::Model& model) {
  const LawInputs inputs = law_inputs(spec, model);
  v1::Forecast result;
  *result.mutable_quantized() = predict_quantized(inputs);
  *result.mutable_round_to_nearest() = predict_ouyang(inputs, PostTraining::kRoundToNearest);

  const Footprint bytes = footprint(with_defaults(spec, model), model);
  result.set_artifact_bytes(bytes.artifact_bytes);
  result.set_original_bytes(bytes.original_bytes);
  result.set_bits_per_weight(bytes.bits_per_weight);
  result.set_memory_bytes(bytes.memory_bytes);
  result.set_disk_bytes(bytes.disk_bytes);
  result.mutable_runtimes()->Add(bytes.runtimes.begin(), bytes.runtimes.end());
  return result;
}

}  // namespace qaas
