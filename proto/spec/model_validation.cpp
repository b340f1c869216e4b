#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include "proto/spec/grids.h"
#include "proto/spec/job_spec.h"
#include "proto/spec/runtimes.h"

namespace qaas {
namespace {

/// GPTQ packs codes along the inputs and zero points along the outputs, 32 values at a time.
constexpr int kPackedValues = 32;

class ModelCheck {
 public:
  ModelCheck(const v1::JobSpec& spec, const v1::Model& model)
      : full_(with_defaults(spec, model)), model_(model) {}

  std::vector<FieldViolation> run() {
    if (model_.projections().empty()) {
      add("model", absl::StrCat("'", model_.name(), "' has no projection that can be quantized"));
      return std::move(violations_);
    }
    check_overrides_apply();
    check_shapes();
    check_activation_groups();
    check_head();
    check_frozen("e2e_qp", full_.e2e_qp());
    check_frozen("distillation", full_.distillation());
    check_average_bits();
    for (int i = 0; i < full_.further_evaluations_size(); ++i) {
      check_length(absl::StrCat("further_evaluations[", i, "]"), full_.further_evaluations(i));
    }
    if (full_.has_calibration()) check_length("calibration", full_.calibration());
    check_length("evaluation", full_.evaluation());
    // A runtime's objection to a grid that the layout cannot hold either would be noise.
    if (violations_.empty()) check_runtimes();
    return std::move(violations_);
  }

 private:
  void add(std::string field, std::string description) {
    violations_.push_back({std::move(field), std::move(description)});
  }

  void check_overrides_apply() {
    std::vector<bool> applies(full_.overrides_size(), false);
    bool quantizes = false;
    for (const v1::ProjectionShape& projection : model_.projections()) {
      const int index = override_for(full_, projection.name());
      if (index >= 0) applies[index] = true;
      quantizes = quantizes || grid_message_for(full_, projection.name()) != nullptr;
    }
    for (int i = 0; i < full_.overrides_size(); ++i) {
      if (applies[i]) continue;
      const std::string& pattern = full_.overrides(i).pattern();
      const bool matches = std::any_of(
          model_.projections().begin(), model_.projections().end(),
          [&](const v1::ProjectionShape& p) { return pattern_matches(pattern, p.name()); });
      add(absl::StrCat("overrides[", i, "].pattern"),
          matches ? "earlier overrides take every projection it matches; put it before them"
                  : matches_nothing());
    }
    if (!quantizes) {
      add("overrides", "keep every projection in full precision: nothing would be quantized");
    }
  }

  /// The group sizes that divide the inputs of every projection whose grid is at `path`.
  std::string dividing_group_sizes(const std::string& path) const {
    std::vector<std::string> sizes;
    for (const int size : {32, 64, 128, 256}) {
      const bool divides =
          std::all_of(model_.projections().begin(), model_.projections().end(),
                      [&](const v1::ProjectionShape& p) {
                        return grid_path_for(full_, p.name()) != path || p.input_size() % size == 0;
                      });
      if (divides) sizes.push_back(absl::StrCat(size));
    }
    sizes.push_back("-1 (a whole output row)");
    return absl::StrJoin(sizes, ", ");
  }

  /// Names the first offender of each grid, not all of them.
  void check_shapes() {
    std::set<std::string> refused_groups;
    std::set<std::string> refused_shapes;
    for (const v1::ProjectionShape& projection : model_.projections()) {
      const ProjectionGrid grid = grid_for(full_, projection.name(), projection.input_size());
      if (grid.bits == 0) continue;
      const std::string path = grid_path_for(full_, projection.name());
      if (projection.input_size() % kPackedValues != 0 ||
          projection.output_size() % kPackedValues != 0) {
        if (refused_shapes.insert(path).second) {
          add(path, absl::StrCat("'", projection.name(), "' is [", projection.output_size(), ", ",
                                 projection.input_size(), "]; the GPTQ layout needs both to be ",
                                 "multiples of ", kPackedValues,
                                 "; an override with keep_full_precision would leave it out"));
        }
      } else if (projection.input_size() % grid.group_size != 0) {
        if (refused_groups.insert(path).second) {
          add(path + ".group_size",
              absl::StrCat("found ", grid.group_size, ", which does not divide the ",
                           projection.input_size(), " inputs of '", projection.name(),
                           "'; accepted for this model: ", dividing_group_sizes(path)));
        }
      }
    }
  }

  /// Quantized projections whose inputs a group of activations does not divide: the first is named.
  void check_activation_groups() {
    const int size = full_.activations().group_size();
    if (!full_.has_activations() || size == -1) return;
    for (const v1::ProjectionShape& projection : model_.projections()) {
      if (grid_message_for(full_, projection.name()) == nullptr) continue;
      if (projection.input_size() % size == 0) continue;
      add("activations.group_size",
          absl::StrCat("found ", size, ", which does not divide the ", projection.input_size(),
                       " inputs of '", projection.name(),
                       "'; accepted: a divisor of every quantized projection's inputs, or -1"));
      return;
    }
  }

  void check_head() {
    if (full_.lm_head_bits() == 0) return;
    const int inputs = model_.hidden_size();
    const int outputs = model_.vocabulary_size();
    const int size = full_.weights().group_size();
    if (inputs % kPackedValues != 0 || outputs % kPackedValues != 0) {
      add("lm_head_bits",
          absl::StrCat("found ", full_.lm_head_bits(), ", but the head is [", outputs, ", ", inputs,
                       "]; the GPTQ layout needs both to be multiples of ", kPackedValues,
                       "; accepted: 0"));
    } else if (size != -1 && inputs % size != 0) {
      add("lm_head_bits",
          absl::StrCat("found ", full_.lm_head_bits(), ", but weights.group_size ", size,
                       " does not divide the head's ", inputs, " inputs; accepted: 0"));
    }
  }

  /// Patterns that match nothing, and a stage that they leave nothing to train.
  void check_frozen(const std::string& path, const v1::EndToEndOptions& options) {
    std::vector<bool> matches(options.freeze_size(), false);
    bool all_frozen = options.freeze_size() > 0;
    for (const v1::ProjectionShape& projection : model_.projections()) {
      bool frozen = grid_message_for(full_, projection.name()) == nullptr;
      for (int i = 0; i < options.freeze_size(); ++i) {
        if (!pattern_matches(options.freeze(i), projection.name())) continue;
        matches[i] = true;
        frozen = true;
      }
      all_frozen = all_frozen && frozen;
    }
    for (int i = 0; i < options.freeze_size(); ++i) {
      if (!matches[i]) {
        add(absl::StrCat(path, ".freeze[", i, "]"), matches_nothing());
        return;
      }
    }
    if (all_frozen && options.norm_learning_rate() == 0) {
      add(path + ".freeze", "matches every quantized projection: nothing would train");
    }
  }

  /// Mean bits must pay at least for the narrowest candidate everywhere.
  void check_average_bits() {
    if (!full_.automatic().has_average_bits() || full_.automatic().candidate_bits().empty()) return;
    const int narrowest = full_.automatic().candidate_bits(0);
    double bits = 0;
    double weights = 0;
    for (const v1::ProjectionShape& projection : model_.projections()) {
      ProjectionGrid grid = grid_for(full_, projection.name(), projection.input_size());
      if (grid.bits == 0) continue;
      if (grid_path_for(full_, projection.name()) == "weights") grid.bits = narrowest;
      const double count = static_cast<double>(projection.input_size()) * projection.output_size();
      weights += count;
      bits += count * (grid.bits + (grid.bits + 16.0) / static_cast<double>(grid.group_size));
    }
    const double least = std::ceil(bits / std::max(weights, 1.0) * 100) / 100;
    if (full_.automatic().average_bits() < least) {
      add("automatic.average_bits",
          absl::StrCat("found ", full_.automatic().average_bits(),
                       "; accepted for this model: ", least, " or more, which ", narrowest,
                       " bits everywhere cost with scales and zero points"));
    }
  }

  std::string matches_nothing() const {
    return absl::StrCat("matches no projection of '", model_.name(), "'; accepted: names such as '",
                        model_.projections(0).name(),
                        "', where '*' stands for any run of characters");
  }

  void check_length(const std::string& path, const v1::DataSelection& selection) {
    const int longest = model_.max_position_embeddings();
    if (longest > 0 && selection.sequence_length() > longest) {
      add(path + ".sequence_length",
          absl::StrCat("found ", selection.sequence_length(), "; accepted: at most ", longest,
                       ", the model's maximum position"));
    }
  }

  void check_runtimes() {
    for (int i = 0; i < full_.target_runtimes_size(); ++i) {
      const v1::RuntimeSupport support = runtime_support(full_.target_runtimes(i), full_, model_);
      if (!support.loads()) add(absl::StrCat("target_runtimes[", i, "]"), support.reason());
    }
  }

  const v1::JobSpec full_;
  const v1::Model& model_;
  std::vector<FieldViolation> violations_;
};

}  // namespace

std::vector<FieldViolation> validate_for_model(const v1::JobSpec& spec, const v1::Model& model) {
  return ModelCheck(spec, model).run();
}

}  // namespace qaas
