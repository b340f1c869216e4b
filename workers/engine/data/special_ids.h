#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <absl/status/statusor.h>
#include <nlohmann/json.hpp>

namespace qaas {

/// What goes before and after the ids of a text.
struct SpecialIds {
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
};

/// The id of a token's text, or -1.
using TokenLookup = std::function<int32_t(const std::string&)>;

/// Reads "add_bos_token" and "add_eos_token" of a tokenizer_config.json (an absent flag is false)
/// and looks up "bos_token" and "eos_token". kInvalidArgument names a flag whose token is unknown.
absl::StatusOr<SpecialIds> special_ids_from_config(const nlohmann::json& config,
                                                   const TokenLookup& lookup);

/// The "post_processor" of a tokenizer.json: TemplateProcessing, ByteLevel (which only concerns
/// offsets), and sequences of them; where there is no template, `config` decides as above. Refuses
/// a template with tokens in front when `config` says add_bos_token false, naming both.
absl::StatusOr<SpecialIds> special_ids_from_post_processor(const nlohmann::json& post_processor,
                                                           const nlohmann::json& config,
                                                           const TokenLookup& lookup);

}  // namespace qaas
