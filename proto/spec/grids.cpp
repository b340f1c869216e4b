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
  return exception.has_weights() ? &exception.weights() : nullptr;
}

std::string grid_path_for(const v1::JobSpec& spec, const std::string& name) {
  const int index = override_for(spec, name);
  return index < 0 ? "weights" : absl::StrCat("overrides[", index, "].weights");
}

bool uses_gptq(const v1::JobSpec& spec) {
  return spec.initialisation().initializer() == v1::INITIALIZER_GPTQ ||
         std::any_of(spec.overrides().begin(), spec.overrides().end(),
                     [](const v1::ProjectionOverride& exception) {
                       return exception.initializer() == v1::INITIALIZER_GPTQ;
                     });
}

ProjectionGrid grid_for(const v1::JobSpec& spec, const std::string& name, int64_t input_size) {
  const v1::WeightQuantization* grid = grid_message_for(spec, name);
  if (grid == nullptr) return {};
  return {.bits = grid->bits(),
          .group_size = grid->group_size() == -1 ? input_size : grid->group_size(),
          .symmetric = grid->symmetric()};
}

}  // namespace qaas
