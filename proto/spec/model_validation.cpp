#include <algorithm>
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
                  : absl::StrCat("matches no projection of '", model_.name(),
                                 "'; accepted: names such as '", model_.projections(0).name(),
                                 "', where '*' stands for any run of characters"));
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
