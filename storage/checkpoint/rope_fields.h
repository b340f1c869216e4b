#pragma once

#include <nlohmann/json.hpp>

#include "storage/checkpoint/config_fields.h"
#include "storage/checkpoint/model_config.h"

namespace qaas {

/// The rotary embedding of a config.json, both spellings: "rope_theta" with "rope_scaling"
/// (transformers 4), or "rope_parameters" with rope_theta inside (transformers 5). Values inside
/// the object win. A failure is recorded in `fields`, which reads the same object.
RopeConfig read_rope(const nlohmann::json& config, double default_theta, ConfigFields& fields);

}  // namespace qaas
