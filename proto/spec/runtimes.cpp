#include "proto/spec/runtimes.h"

#include <array>
#include <map>
#include <optional>

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/string_view.h>

#include "proto/spec/grids.h"
#include "proto/spec/job_spec.h"

namespace qaas {
namespace {

std::string describe(const v1::WeightQuantization* grid) {
  if (grid == nullptr) return "full precision";
  return absl::StrCat(grid->bits(), " bits, group size ", grid->group_size(),
                      grid->symmetric() ? ", symmetric" : ", asymmetric");
}

bool same_grid(const v1::WeightQuantization* a, const v1::WeightQuantization* b) {
  if (a == nullptr || b == nullptr) return a == b;
  return a->bits() == b->bits() && a->group_size() == b->group_size() &&
         a->symmetric() == b->symmetric();
}

/// The name of the module vLLM fuses projection `name` into, or empty.
std::string fused_module(absl::string_view name) {
  constexpr std::array<std::array<absl::string_view, 2>, 5> kFused = {{
      {".q_proj", ".qkv_proj"},
      {".k_proj", ".qkv_proj"},
      {".v_proj", ".qkv_proj"},
      {".gate_proj", ".gate_up_proj"},
      {".up_proj", ".gate_up_proj"},
  }};
  for (const auto& [part, whole] : kFused) {
    if (absl::EndsWith(name, part)) {
      return absl::StrCat(name.substr(0, name.size() - part.size()), whole);
    }
  }
  return "";
}

std::optional<std::string> vllm_objection(const v1::WeightQuantization& grid,
                                          const std::string& name) {
  if (grid.bits() != 4 && grid.bits() != 8) {
    return absl::StrCat("vLLM loads 4 and 8 bits in GPTQ layout, and '", name, "' would have ",
                        grid.bits(),
                        "; 4 bits symmetric would load, or drop vLLM from the target runtimes");
  }
  if (!grid.symmetric()) {
    return absl::StrCat("vLLM loads only symmetric grids in GPTQ layout, and '", name,
                        "' would be asymmetric; symmetric = true would load");
  }
  if (grid.group_size() == 256) {
    return absl::StrCat("vLLM loads group sizes 32, 64, 128 and -1, and '", name,
                        "' would have 256; 128 would load");
  }
  return std::nullopt;
}

/// The first reason why vLLM could not load the artifact.
std::optional<std::string> vllm_objection(const v1::JobSpec& spec, const v1::Model& model) {
  struct Member {
    const v1::WeightQuantization* grid;
    const std::string* name;
  };
  if (spec.automatic().has_average_bits()) {
    return std::string(
        "automatic.average_bits may give q/k/v, or gate/up, of a block different widths, which "
        "vLLM fuses into one; weights.bits 4 without it would load");
  }
  if (spec.lm_head_bits() != 0) {
    v1::WeightQuantization head = spec.weights();
    head.set_bits(spec.lm_head_bits());
    if (auto objection = vllm_objection(head, "lm_head")) return objection;
  }
  std::map<std::string, Member> fused;
  for (const v1::ProjectionShape& projection : model.projections()) {
    const v1::WeightQuantization* grid = grid_message_for(spec, projection.name());
    if (grid != nullptr) {
      if (auto objection = vllm_objection(*grid, projection.name())) return objection;
    }
    const std::string whole = fused_module(projection.name());
    if (whole.empty()) continue;
    const Member& first = fused.try_emplace(whole, Member{grid, &projection.name()}).first->second;
    if (!same_grid(first.grid, grid)) {
      return absl::StrCat("vLLM fuses '", *first.name, "' (", describe(first.grid), ") and '",
                          projection.name(), "' (", describe(grid),
                          ") into one; give q/k/v, and gate/up, of a block the same grid");
    }
  }
  return std::nullopt;
}

}  // namespace

namespace {

v1::RuntimeSupport weight_support(v1::TargetRuntime runtime, const v1::JobSpec& spec,
                                  const v1::Model& model) {
  v1::RuntimeSupport support;
  switch (runtime) {
    case v1::TARGET_RUNTIME_VLLM: {
      support.set_runtime("vllm");
      const std::optional<std::string> objection = vllm_objection(spec, model);
      support.set_loads(!objection.has_value());
      if (objection.has_value()) support.set_reason(*objection);
      return support;
    }
    case v1::TARGET_RUNTIME_LLAMA_CPP:
      support.set_runtime("llama_cpp");
      support.set_reason(
          "llama.cpp loads GGUF files, which the service does not write yet; "
          "TARGET_RUNTIME_GPTQMODEL would load");
      return support;
    default:
      support.set_runtime("gptqmodel");
      support.set_loads(true);
      return support;
  }
}

}  // namespace

v1::RuntimeSupport runtime_support(v1::TargetRuntime runtime, const v1::JobSpec& spec,
                                   const v1::Model& model) {
  v1::RuntimeSupport support = weight_support(runtime, spec, model);
  if (support.loads() && spec.has_activations()) {
    support.set_reason(absl::StrCat(
        "loads the weights and runs them with activations in full precision; the ",
        spec.activations().bits(), "-bit activations measured here are in manifest.json only"));
  }
  return support;
}

}  // namespace qaas
