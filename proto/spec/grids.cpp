#include "proto/spec/grids.h"

#include <algorithm>

#include <absl/strings/str_cat.h>

#include "proto/spec/job_spec.h"

namespace qaas {

// Greedy with one point of return: on a mismatch the last "*" swallows one more character. Time is
// at most |pattern| * |name|, whatever the pattern.
bool pattern_matches(const std::string& pattern, const std::string& name) {
  size_t p = 0;
  size_t n = 0;
  size_t star = std::string::npos;
  size_t star_end = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_end = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
    } else if (star != std::string::npos) {
      p = star + 1;
      n = ++star_end;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

int override_for(const v1::JobSpec& spec, const std::string& name) {
  for (int i = 0; i < spec.overrides_size(); ++i) {
    if (pattern_matches(spec.overrides(i).pattern(), name)) return i;
  }
  return -1;
}

const v1::WeightQuantization* grid_message_for(const v1::JobSpec& spec, const std::string& name) {
  const int index = override_for(spec, name);
  if (index < 0) return &spec.weights();
  const v1::ProjectionOverride& exception = spec.overrides(index);
  if (exception.has_keep_full_precision()) return nullptr;
  return exception.has_weights() ? &exception.weights() : &spec.weights();
}

std::string grid_path_for(const v1::JobSpec& spec, const std::string& name) {
  const int index = override_for(spec, name);
  return index < 0 || !spec.overrides(index).has_weights()
             ? "weights"
             : absl::StrCat("overrides[", index, "].weights");
}

v1::Initializer initializer_for(const v1::JobSpec& spec, const std::string& name) {
  const int index = override_for(spec, name);
  const v1::Initializer own =
      index < 0 ? v1::INITIALIZER_UNSPECIFIED : spec.overrides(index).initializer();
  return own == v1::INITIALIZER_UNSPECIFIED ? spec.initialisation().initializer() : own;
}

namespace {

bool starts_with(const v1::JobSpec& spec, v1::Initializer initializer) {
  return spec.initialisation().initializer() == initializer ||
         std::any_of(spec.overrides().begin(), spec.overrides().end(),
                     [initializer](const v1::ProjectionOverride& exception) {
                       return exception.initializer() == initializer;
                     });
}

}  // namespace

bool uses_gptq(const v1::JobSpec& spec) { return starts_with(spec, v1::INITIALIZER_GPTQ); }

bool uses_clip_search(const v1::JobSpec& spec) {
  return starts_with(spec, v1::INITIALIZER_CLIP_SEARCH) ||
         (uses_gptq(spec) && spec.initialisation().gptq_qparams() == v1::INITIALIZER_CLIP_SEARCH);
}

bool reads_calibration(const v1::JobSpec& spec) {
  return spec.method() != v1::METHOD_ROUND_TO_NEAREST || uses_gptq(spec) ||
         spec.initialisation().activation_aware() || spec.signal_report() || spec.has_automatic();
}

ProjectionGrid grid_for(const v1::JobSpec& spec, const std::string& name, int64_t input_size) {
  const v1::WeightQuantization* grid = grid_message_for(spec, name);
  if (grid == nullptr) return {};
  return {.bits = grid->bits(),
          .group_size = grid->group_size() == -1 ? input_size : grid->group_size(),
          .symmetric = grid->symmetric()};
}

}  // namespace qaas
