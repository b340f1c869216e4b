#include "workers/engine/exporters/activation_file.h"

#include <algorithm>

#include <absl/strings/str_cat.h>

#include "storage/checkpoint/message_text.h"
#include "storage/checkpoint/strict_json.h"

namespace qaas {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr char kProjections[] = "projections";

absl::Status refuse(const std::string& field, const json& found, const std::string& accepted) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": found ", describe_json(found), ", accepted: ", accepted));
}

absl::StatusOr<ActivationQuantizer> parse_quantizer(const json& object, const std::string& prefix,
                                                    int64_t input_size) {
  if (!object.is_object()) return refuse(prefix, object, "bits, group_size and clip");
  const json bits = object.value("bits", json()), group = object.value("group_size", json()),
             clip = object.value("clip", json());
  if (bits != 4 && bits != 8) return refuse(prefix + ".bits", bits, "4, 8");
  if (!group.is_number_integer() ||
      (group != -1 && (group < 1 || input_size % group.get<int64_t>() != 0))) {
    return refuse(prefix + ".group_size", group,
                  absl::StrCat("-1, or a divisor of the projection's ", input_size, " inputs"));
  }
  if (!clip.is_number() || !(clip >= kMinClip && clip <= 1)) {
    return refuse(prefix + ".clip", clip, absl::StrCat(kMinClip, " to 1"));
  }
  if (object.size() != 3) return refuse(prefix, object, "bits, group_size and clip alone");
  return ActivationQuantizer{{bits.get<int>(), group.get<int64_t>()}, clip.get<float>()};
}

}  // namespace

ordered_json activation_json(const ActivationQuantizers& quantizers) {
  ordered_json projections = ordered_json::object();
  for (const auto& [name, quantizer] : quantizers) {
    projections[name] = {{"bits", quantizer.grid.bits},
                         {"group_size", quantizer.grid.group_size},
                         {"clip", quantizer.clip}};
  }
  return {{kProjections, std::move(projections)}};
}

absl::StatusOr<ActivationQuantizers> parse_activation_json(
    const json& document, const std::vector<Projection2d>& projections) {
  const json entries =
      document.is_object() && document.size() == 1 ? document.value(kProjections, json()) : json();
  if (!entries.is_object())
    return refuse(kProjections, entries, "an object, and nothing beside it");
  ActivationQuantizers quantizers;
  for (const auto& [name, entry] : entries.items()) {
    const auto projection = std::find_if(projections.begin(), projections.end(),
                                         [&name](const Projection2d& p) { return p.name == name; });
    if (projection == projections.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(kProjections, ": '", printable(name), "' is not a projection of the model"));
    }
    const auto quantizer =
        parse_quantizer(entry, absl::StrCat(kProjections, ".", name), projection->input_size);
    if (!quantizer.ok()) return quantizer.status();
    quantizers[name] = *quantizer;
  }
  return quantizers;
}

}  // namespace qaas
