#pragma once

#include <string>

#include "qaas/v1/report.pb.h"

/// The parts of the page. Each is empty where the report holds nothing for it.
namespace qaas::report {

/// Model, method, sizes and the verdict in a sentence.
std::string head_section(const v1::RunReport& run);

/// Perplexity of every model, with divergence and agreement beside it; further texts.
std::string quality_section(const v1::RunReport& run);
std::string task_section(const v1::RunReport& run);
/// What the laws predicted against what was measured.
std::string forecast_section(const v1::RunReport& run);

/// Loss per block and per step.
std::string training_section(const v1::RunReport& run);

/// Sensitivity and signal propagation, block by projection.
std::string signal_section(const v1::RunReport& run);
/// What the automatic choice did.
std::string automatic_section(const v1::RunReport& run);

/// The spec and the host.
std::string spec_section(const v1::RunReport& run);

/// "EfficientQAT", "GPTQ", ...
std::string method_name(v1::Method method);

/// "stories15M" for "models/stories15M".
std::string model_name(const v1::RunReport& run);

/// "E2E-QP" for "e2e_qp"; a stage this page does not know by its own name.
std::string stage_name(const std::string& stage);

}  // namespace qaas::report
