#include <algorithm>
#include <cmath>

#include <absl/strings/str_cat.h>

#include "workers/engine/report/markup.h"
#include "workers/engine/report/sections.h"

namespace qaas::report {
namespace {

/// "2-bit, groups of 32, asymmetric".
std::string grid_of(const v1::WeightQuantization& weights) {
  std::string text = absl::StrCat(weights.bits(), "-bit weights");
  if (weights.has_group_size()) {
    absl::StrAppend(&text, weights.group_size() < 0
                               ? ", one scale per row"
                               : absl::StrCat(", groups of ", weights.group_size()));
  }
  if (weights.has_symmetric()) {
    absl::StrAppend(&text, weights.symmetric() ? ", symmetric" : ", asymmetric");
  }
  return text;
}

std::string preset_name(v1::Preset preset) {
  switch (preset) {
    case v1::PRESET_PAPER:
      return "preset “paper”";
    case v1::PRESET_ACCURACY:
      return "preset “accuracy”";
    case v1::PRESET_FAST:
      return "preset “fast”";
    default:
      return "";
  }
}

std::vector<std::string> chips_of(const v1::RunReport& run) {
  const v1::JobSpec& spec = run.job().spec();
  std::vector<std::string> chips = {method_name(spec.method()), grid_of(spec.weights())};
  if (const std::string preset = preset_name(spec.preset()); !preset.empty()) {
    chips.push_back(preset);
  }
  if (spec.has_activations()) {
    chips.push_back(absl::StrCat(spec.activations().bits(), "-bit activations"));
  }
  if (spec.overrides_size() > 0) {
    chips.push_back(absl::StrCat(spec.overrides_size(),
                                 spec.overrides_size() == 1 ? " override" : " overrides"));
  }
  if (spec.lm_head_bits() > 0) chips.push_back(absl::StrCat(spec.lm_head_bits(), "-bit head"));
  if (spec.embedding_bits() > 0) {
    chips.push_back(absl::StrCat(spec.embedding_bits(), "-bit embeddings"));
  }
  if (spec.initialisation().rotate()) chips.emplace_back("rotated");
  if (spec.has_seed()) chips.push_back(absl::StrCat("seed ", spec.seed()));
  return chips;
}

/// How much was lost, from the larger of the loss's rise and the divergence: a model that adapted
/// to the text can have a low loss and still have drifted.
std::string judgement(double error) {
  if (error < 0.01) return "Practically nothing was lost";
  if (error < 0.05) return "Very little was lost";
  if (error < 0.2) return "Little was lost";
  if (error < 0.7) return "A noticeable part was lost";
  return "Much was lost";
}

std::string verdict(const v1::Evaluation& e) {
  const double error = std::max(e.measured_error(), e.quantized().kl_divergence());
  std::string text = absl::StrCat("<strong>", judgement(error), ".</strong> Perplexity is ",
                                  number(e.quantized().perplexity(), 3), " against the original’s ",
                                  number(e.original().perplexity(), 3), " (",
                                  signed_number(e.measured_error()), " nats per token)");
  if (e.original_bytes() > 0 && e.artifact_bytes() > 0) {
    absl::StrAppend(&text, " at ",
                    percent(double(e.artifact_bytes()) / double(e.original_bytes()), 0),
                    " of its size");
  }
  const double baseline = e.round_to_nearest().loss() - e.original().loss();
  const double spared = 1 - e.measured_error() / baseline;
  if (e.has_round_to_nearest() && baseline > 0.005 && spared > 0.01) {
    absl::StrAppend(&text, "; plain rounding would have ended at ",
                    number(e.round_to_nearest().perplexity(), 3), ", so ",
                    percent(std::min(spared, 1.0), 0), " of its loss was avoided");
  }
  return text + ".";
}

std::string tile(const std::string& value, const std::string& label) {
  return absl::StrCat("<div class=\"tile\"><b>", value, "</b><span>", label, "</span></div>");
}

std::string tiles(const v1::Evaluation& e) {
  std::string html = "<div class=\"tiles\">";
  absl::StrAppend(&html,
                  tile(number(e.quantized().perplexity(), 4),
                       absl::StrCat("perplexity; original ", number(e.original().perplexity()))),
                  tile(number(e.quantized().kl_divergence(), 3),
                       "nats per token of divergence (KL) from the original"));
  if (e.quantized().top1_agreement() > 0) {
    absl::StrAppend(&html, tile(percent(e.quantized().top1_agreement()),
                                "of next tokens as the original chooses them"));
  }
  if (e.artifact_bytes() > 0) {
    absl::StrAppend(&html,
                    tile(byte_count(e.artifact_bytes()),
                         absl::StrCat("of weights; original ", byte_count(e.original_bytes()))));
  }
  return html + "</div>";
}

}  // namespace

std::string method_name(v1::Method method) {
  switch (method) {
    case v1::METHOD_ROUND_TO_NEAREST:
      return "Round to nearest";
    case v1::METHOD_EFFICIENT_QAT:
      return "EfficientQAT";
    case v1::METHOD_GPTQ:
      return "GPTQ";
    case v1::METHOD_DISTILLATION_QAT:
      return "Distillation QAT";
    default:
      return "Quantization";
  }
}

std::string model_name(const v1::RunReport& run) {
  constexpr std::string_view kPrefix = "models/";
  const std::string& model = run.job().spec().model();
  return model.starts_with(kPrefix) ? model.substr(kPrefix.size()) : model;
}

std::string stage_name(const std::string& stage) {
  if (stage == "block_ap") return "Block-AP";
  if (stage == "e2e_qp") return "E2E-QP";
  if (stage == "distillation") return "Distillation";
  return stage;
}

std::string head_section(const v1::RunReport& run) {
  std::string html = absl::StrCat("<header><p class=\"kicker\">Quantization report",
                                  run.job().name().empty() ? "" : " · " + escaped(run.job().name()),
                                  "</p><h1>", escaped(model_name(run)), "</h1>");
  if (run.has_evaluation()) {
    absl::StrAppend(&html, "<p class=\"verdict\">", verdict(run.evaluation()), "</p>");
  }
  html += "<ul class=\"chips\">";
  for (const std::string& chip : chips_of(run)) {
    absl::StrAppend(&html, "<li>", escaped(chip), "</li>");
  }
  html += "</ul></header>";
  return run.has_evaluation() ? html + tiles(run.evaluation()) : html;
}

}  // namespace qaas::report
