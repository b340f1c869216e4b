#include "storage/checkpoint/rope_fields.h"

#include <absl/strings/str_cat.h>

#include "storage/checkpoint/strict_json.h"

namespace qaas {
namespace {

using nlohmann::json;

constexpr double kMaxTheta = 1e12;
constexpr double kMaxFactor = 1e6;
constexpr int64_t kMaxContext = int64_t{1} << 30;

/// The object that holds the scaling, "rope_parameters" or "rope_scaling"; "" for neither.
std::string spelling_of(const json& config, ConfigFields& fields) {
  const bool parameters = fields.has("rope_parameters");
  const bool scaling = fields.has("rope_scaling");
  if (parameters && scaling && config["rope_parameters"] != config["rope_scaling"]) {
    fields.fail("rope_scaling", "contradicts 'rope_parameters'; keep one of the two");
  }
  const std::string spelling = parameters ? "rope_parameters" : scaling ? "rope_scaling" : "";
  if (!spelling.empty() && !config[spelling].is_object()) {
    fields.fail(spelling,
                absl::StrCat("is ", describe_json(config[spelling]), ", expected an object"));
    return "";
  }
  return spelling;
}

RopeConfig read_scaling(double outer_theta, ConfigFields& fields) {
  RopeConfig rope{.theta = fields.number("rope_theta", 1.0, kMaxTheta, outer_theta)};
  fields.accept_only({"rope_type", "type", "rope_theta", "factor", "low_freq_factor",
                      "high_freq_factor", "original_max_position_embeddings",
                      "partial_rotary_factor"});
  if (fields.number("partial_rotary_factor", 0, 1, 1) != 1) {
    fields.fail("partial_rotary_factor", "accepted: 1");
  }
  const std::string old_type = fields.string("type", "default");
  const std::string type = fields.string("rope_type", old_type);
  if (fields.has("type") && type != old_type) {
    fields.fail("type", absl::StrCat("is '", old_type, "', contradicts rope_type '", type, "'"));
  }
  if (type == "linear" || type == "llama3") rope.factor = fields.number("factor", 1, kMaxFactor);
  if (type == "linear") {
    rope.scaling = RopeConfig::Scaling::kLinear;
  } else if (type == "llama3") {
    rope.scaling = RopeConfig::Scaling::kLlama3;
    rope.low_freq_factor = fields.number("low_freq_factor", 1e-6, kMaxFactor);
    rope.high_freq_factor = fields.number("high_freq_factor", 1e-6, kMaxFactor);
    rope.original_max_position_embeddings =
        fields.integer("original_max_position_embeddings", 1, kMaxContext);
    if (rope.high_freq_factor <= rope.low_freq_factor) {
      fields.fail("high_freq_factor",
                  absl::StrCat("is ", rope.high_freq_factor,
                               ", expected more than low_freq_factor ", rope.low_freq_factor));
    }
  } else if (type != "default") {
    fields.fail(fields.has("rope_type") ? "rope_type" : "type",
                absl::StrCat("is '", type, "', accepted: default, linear, llama3"));
  }
  return rope;
}

}  // namespace

RopeConfig read_rope(const json& config, double default_theta, ConfigFields& fields) {
  const std::string spelling = spelling_of(config, fields);
  if (spelling.empty()) {
    return {.theta = fields.number("rope_theta", 1.0, kMaxTheta, default_theta)};
  }
  const json& object = config[spelling];
  ConfigFields inner(object, spelling + ".");
  // Read outside only where it counts, so that an ignored value is not reported as defaulted.
  const double outer = inner.has("rope_theta")
                           ? default_theta
                           : fields.number("rope_theta", 1.0, kMaxTheta, default_theta);
  RopeConfig rope = read_scaling(outer, inner);
  fields.absorb(inner.status());
  return rope;
}

}  // namespace qaas
