#pragma once

#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "storage/checkpoint/model_folder.h"
#include "tests/support/temporary_folder.h"
#include "workers/engine/exporters/gptq_config.h"
#include "workers/engine/quant/quantized_weight.h"

namespace qaas::testing {

/// Writes a one-block Llama (hidden 128, intermediate 256, 4 heads, 2 of keys and values, bf16,
/// tied) with random weights and two side files, and opens it.
ModelFolder write_tiny_source(const std::filesystem::path& folder);

/// A weight with random codes, zero points (the mid-point if symmetric) and fp16 scales.
QuantizedWeight random_weight(const Projection2d& projection, const GptqGrid& grid,
                              std::mt19937& random);

std::string read_text(const std::filesystem::path& path);
void write_text(const std::filesystem::path& path, const std::string& text);

}  // namespace qaas::testing
