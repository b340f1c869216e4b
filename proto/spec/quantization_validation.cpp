#include <set>
#include <string>

#include <absl/strings/str_cat.h>

#include "proto/spec/field_checks.h"
#include "proto/spec/grids.h"

namespace qaas {
namespace {

bool is_width(int bits) { return bits == 2 || bits == 3 || bits == 4 || bits == 8; }

void check_grid(const std::string& path, const v1::WeightQuantization& grid, FieldChecks& checks) {
  if (grid.bits() == 0) {
    checks.add(path + ".bits", "missing; accepted: 2, 3, 4, 8");
  } else if (!is_width(grid.bits())) {
    checks.add(path + ".bits", absl::StrCat("found ", grid.bits(), "; accepted: 2, 3, 4, 8"));
  }
  if (!grid.has_group_size()) return;
  switch (grid.group_size()) {
    case -1:
    case 32:
    case 64:
    case 128:
    case 256:
      return;
    default:
      checks.add(path + ".group_size",
                 absl::StrCat("found ", grid.group_size(),
                              "; accepted: 32, 64, 128, 256, or -1 for a whole output row"));
  }
}

void check_treatment(const std::string& path, const v1::ProjectionOverride& exception,
                     FieldChecks& checks) {
  checks.enumerator(path + ".initializer", exception.initializer(), *v1::Initializer_descriptor());
  const bool starts = exception.initializer() != v1::INITIALIZER_UNSPECIFIED;
  switch (exception.treatment_case()) {
    case v1::ProjectionOverride::kWeights:
      check_grid(path + ".weights", exception.weights(), checks);
      break;
    case v1::ProjectionOverride::kKeepFullPrecision:
      if (!exception.keep_full_precision()) {
        checks.add(path + ".keep_full_precision", "found false; accepted: true, or leave it out");
      }
      if (starts) {
        checks.add(
            path + ".initializer",
            "found with keep_full_precision, which has nothing to initialise; leave one out");
      }
      break;
    case v1::ProjectionOverride::TREATMENT_NOT_SET:
      if (!starts) {
        checks.add(path,
                   "says nothing to do; accepted: weights, keep_full_precision, or an initializer");
      }
      break;
  }
}

void check_overrides(const v1::JobSpec& spec, FieldChecks& checks) {
  if (spec.overrides_size() > kMostPatterns) {
    checks.add("overrides", absl::StrCat("found ", spec.overrides_size(),
                                         " overrides; accepted: at most ", kMostPatterns));
    return;
  }
  std::set<std::string> seen;
  for (int i = 0; i < spec.overrides_size(); ++i) {
    const v1::ProjectionOverride& exception = spec.overrides(i);
    const std::string path = absl::StrCat("overrides[", i, "]");
    checks.pattern(path + ".pattern", exception.pattern());
    if (!exception.pattern().empty() && !seen.insert(exception.pattern()).second) {
      checks.add(path + ".pattern", absl::StrCat("found ", quoted(exception.pattern()),
                                                 " a second time; only the first would apply"));
    }
    check_treatment(path, exception, checks);
  }
}

void check_runtimes(const v1::JobSpec& spec, FieldChecks& checks) {
  std::set<int> seen;
  for (int i = 0; i < spec.target_runtimes_size(); ++i) {
    const std::string field = absl::StrCat("target_runtimes[", i, "]");
    const int runtime = spec.target_runtimes(i);
    if (runtime == v1::TARGET_RUNTIME_UNSPECIFIED || !v1::TargetRuntime_IsValid(runtime)) {
      checks.add(field, absl::StrCat("found ", runtime, "; accepted: TARGET_RUNTIME_GPTQMODEL, ",
                                     "TARGET_RUNTIME_VLLM"));
      return;  // one complaint is enough for a list of any length
    }
    if (runtime == v1::TARGET_RUNTIME_LLAMA_CPP) {
      checks.add(field,
                 "found TARGET_RUNTIME_LLAMA_CPP, but the service does not write GGUF files yet; "
                 "accepted: TARGET_RUNTIME_GPTQMODEL, TARGET_RUNTIME_VLLM");
    }
    if (!seen.insert(runtime).second) {
      checks.add(field, absl::StrCat("found ", v1::TargetRuntime_Name(runtime),
                                     " a second time; name each runtime once"));
      return;
    }
  }
}

void check_initializer(const v1::JobSpec& spec, const v1::JobSpec& full, FieldChecks& checks) {
  const std::string field = "initialisation.initializer";
  const v1::Initializer initializer = full.initialisation().initializer();
  checks.enumerator(field, initializer, *v1::Initializer_descriptor());
  if (spec.method() == v1::METHOD_ROUND_TO_NEAREST && initializer == v1::INITIALIZER_GPTQ) {
    checks.add(field,
               "found INITIALIZER_GPTQ with METHOD_ROUND_TO_NEAREST; use METHOD_GPTQ, or accepted: "
               "INITIALIZER_MIN_MAX, INITIALIZER_CLIP_SEARCH");
  }
  if (spec.method() == v1::METHOD_GPTQ && v1::Initializer_IsValid(initializer) &&
      initializer != v1::INITIALIZER_GPTQ) {
    checks.add(field, absl::StrCat("found ", v1::Initializer_Name(initializer),
                                   " with METHOD_GPTQ; use METHOD_ROUND_TO_NEAREST, or accepted: "
                                   "INITIALIZER_GPTQ (gptq_qparams says where it starts)"));
  }
}

void check_gptq(const v1::JobSpec& spec, const v1::JobSpec& full, FieldChecks& checks) {
  const v1::Initialisation& start = spec.initialisation();
  if (!uses_gptq(full)) {
    const std::string reason =
        "found, but no projection starts with INITIALIZER_GPTQ; leave it out, or choose that";
    if (start.gptq_qparams() != v1::INITIALIZER_UNSPECIFIED) {
      checks.add("initialisation.gptq_qparams", reason);
    }
    if (start.has_gptq_damping()) checks.add("initialisation.gptq_damping", reason);
    if (start.has_gptq_activation_order()) {
      checks.add("initialisation.gptq_activation_order", reason);
    }
    return;
  }
  const v1::Initializer qparams = full.initialisation().gptq_qparams();
  if (qparams != v1::INITIALIZER_MIN_MAX && qparams != v1::INITIALIZER_CLIP_SEARCH) {
    checks.add(
        "initialisation.gptq_qparams",
        absl::StrCat("found ",
                     qparams == v1::INITIALIZER_GPTQ ? "INITIALIZER_GPTQ" : absl::StrCat(qparams),
                     "; accepted: INITIALIZER_MIN_MAX, INITIALIZER_CLIP_SEARCH"));
  }
  if (start.has_gptq_damping()) {
    checks.number("initialisation.gptq_damping", start.gptq_damping(),
                  {.low = 0, .high = 1, .open_low = true});
  }
}

void check_initialisation(const v1::JobSpec& spec, const v1::JobSpec& full, FieldChecks& checks) {
  check_initializer(spec, full, checks);
  check_gptq(spec, full, checks);
  if (full.initialisation().activation_aware() && !uses_clip_search(full)) {
    checks.add("initialisation.activation_aware",
               "found true, but nothing searches clips; leave it out, or choose "
               "INITIALIZER_CLIP_SEARCH");
  }
}

void check_activations(const v1::JobSpec& spec, FieldChecks& checks) {
  if (!spec.has_activations()) return;
  const v1::ActivationQuantization& activations = spec.activations();
  const auto check_bits = [&](const std::string& field, int bits) {
    if (bits != 4 && bits != 8) {
      checks.add(field, absl::StrCat(bits == 0 ? "missing" : absl::StrCat("found ", bits),
                                     "; accepted: 4, 8"));
    }
  };
  check_bits("activations.bits", activations.bits());
  if (activations.has_down_proj_bits()) {
    check_bits("activations.down_proj_bits", activations.down_proj_bits());
  }
  const int size = activations.group_size();
  if (activations.has_group_size() && size != -1 && (size < 16 || size > 4096)) {
    checks.add("activations.group_size",
               absl::StrCat("found ", size,
                            "; accepted: 16 to 4096, or -1 for all of a token's "
                            "inputs"));
  }
  const bool trains =
      spec.method() == v1::METHOD_EFFICIENT_QAT || spec.method() == v1::METHOD_DISTILLATION_QAT;
  if (activations.learn_clip() && !trains) {
    checks.add("activations.learn_clip",
               "found true with a method that does not train; accepted with METHOD_EFFICIENT_QAT "
               "and METHOD_DISTILLATION_QAT");
  }
}

void check_eight_or_none(const std::string& field, int bits, FieldChecks& checks) {
  if (bits != 0 && bits != 8) {
    checks.add(field, absl::StrCat("found ", bits, "; accepted: 8, or 0 for full precision"));
  }
}

void check_candidates(const v1::AutomaticChoice& choice, FieldChecks& checks) {
  int last = 0;
  for (const int bits : choice.candidate_bits()) {
    if (!is_width(bits) || bits <= last) {
      checks.add("automatic.candidate_bits",
                 absl::StrCat("found ", bits, last == 0 ? "" : absl::StrCat(" after ", last),
                              "; accepted: 2, 3, 4, 8, ascending, each once"));
      return;
    }
    last = bits;
  }
  if (choice.candidate_bits_size() == 1) {
    checks.add("automatic.candidate_bits",
               "found one width, which leaves no choice; accepted: two or more of 2, 3, 4, 8");
  }
}

void check_automatic(const v1::JobSpec& spec, FieldChecks& checks) {
  if (!spec.has_automatic()) return;
  const v1::AutomaticChoice& choice = spec.automatic();
  if (!choice.has_average_bits() && !choice.has_freeze_share()) {
    checks.add("automatic", "says nothing to choose; accepted: average_bits, freeze_share");
  }
  if (choice.has_average_bits()) {
    checks.number("automatic.average_bits", choice.average_bits(),
                  {.low = 0, .high = 9, .open_low = true});
    check_candidates(choice, checks);
  } else if (!choice.candidate_bits().empty()) {
    checks.add("automatic.candidate_bits",
               "found without average_bits; leave it out, or give both");
  }
  if (!choice.has_freeze_share()) return;
  checks.number("automatic.freeze_share", choice.freeze_share(), kFraction);
  if (spec.method() != v1::METHOD_DISTILLATION_QAT) {
    checks.add("automatic.freeze_share",
               "found with a method other than METHOD_DISTILLATION_QAT; leave it out");
  } else if (!spec.distillation().freeze().empty()) {
    checks.add("automatic.freeze_share",
               "found together with distillation.freeze; choose by hand or by measurement");
  }
}

}  // namespace

void check_quantization(const v1::JobSpec& spec, const v1::JobSpec& full, FieldChecks& checks) {
  check_grid("weights", spec.weights(), checks);
  check_overrides(spec, checks);
  check_runtimes(spec, checks);
  check_initialisation(spec, full, checks);
  check_activations(spec, checks);
  check_eight_or_none("lm_head_bits", spec.lm_head_bits(), checks);
  check_eight_or_none("embedding_bits", spec.embedding_bits(), checks);
  check_automatic(spec, checks);
}

}  // namespace qaas
