#include "workers/engine/exporters/gptq_config.h"

#include <array>
#include <cctype>
#include <optional>
#include <set>

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include "storage/checkpoint/message_text.h"
#include "storage/checkpoint/strict_json.h"

namespace qaas {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr char kDynamic[] = "dynamic";
constexpr char kHead[] = "lm_head";

/// What vLLM joins on loading; the first member stands for all.
struct FusedProjection {
  const char* name;
  std::array<const char*, 3> members;  // nullptr where there are fewer
};
constexpr std::array kFused = {
    FusedProjection{"qkv_proj", {"q_proj", "k_proj", "v_proj"}},
    FusedProjection{"gate_up_proj", {"gate_proj", "up_proj", nullptr}},
};

/// "model.layers.0.mlp" of "model.layers.0.mlp.up_proj".
std::string parent_of(const std::string& name) { return name.substr(0, name.rfind('.') + 1); }

std::string grid_text(const GptqGrid& grid) {
  if (grid.bits == 0) return "full precision";
  return absl::StrCat(grid.bits, " bits, group size ", grid.group_size,
                      grid.symmetric ? ", symmetric" : ", asymmetric");
}

GptqGrid resolved(const GptqGrid& grid, int64_t input_size) {
  return {grid.bits, grid.group_size == -1 ? input_size : grid.group_size, grid.symmetric};
}

std::string expression_for(const std::string& name, const GptqGrid& grid) {
  std::string pattern = grid.bits == 0 ? "-:^" : "+:^";
  for (const char c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_') pattern += '\\';
    pattern += c;
  }
  return pattern + "$";
}

ordered_json override_of(const GptqGrid& grid, int64_t input_size) {
  if (grid.bits == 0) return ordered_json::object();
  return {{"bits", grid.bits},
          {"group_size", grid.group_size == input_size ? -1 : grid.group_size},
          {"sym", grid.symmetric},
          {"desc_act", false}};
}

/// The grid that every member of the fused projection that begins at `name` has, if they agree.
std::optional<GptqGrid> shared_grid(const FusedProjection& fused, const std::string& name,
                                    const GptqGrids& grids) {
  const std::string parent = parent_of(name);
  if (name != parent + fused.members[0]) return std::nullopt;
  const GptqGrid& first = grids.at(name);
  for (const char* member : fused.members) {
    if (member == nullptr) continue;
    const auto found = grids.find(parent + member);
    if (found == grids.end() || found->second != first) return std::nullopt;
  }
  return first;
}

absl::Status refuse(const std::string& field, const std::string& found,
                    const std::string& accepted) {
  return absl::InvalidArgumentError(
      absl::StrCat("quantization_config.", field, ": found ", found, ", accepted: ", accepted));
}

absl::StatusOr<GptqGrid> parse_grid(const json& object, const std::string& prefix) {
  const auto field = [&object](const char* key) {
    const auto found = object.find(key);
    return found == object.end() ? json() : *found;
  };
  const json bits = field("bits"), group_size = field("group_size"), sym = field("sym");
  if (!bits.is_number_integer() || (bits != 2 && bits != 3 && bits != 4 && bits != 8)) {
    return refuse(prefix + "bits", describe_json(bits), "2, 3, 4, 8");
  }
  if (!group_size.is_number_integer() || (group_size != -1 && group_size < 1)) {
    return refuse(prefix + "group_size", describe_json(group_size), "-1, or 1 and more");
  }
  if (!sym.is_boolean()) return refuse(prefix + "sym", describe_json(sym), "true, false");
  return GptqGrid{bits.get<int>(), group_size.get<int64_t>(), sym.get<bool>()};
}

/// The first difference between what was found and what the writer would have written.
absl::Status compare(const json& found, const json& expected, const std::string& prefix) {
  for (const auto& [key, value] : expected.items()) {
    if (!found.contains(key)) return refuse(prefix + key, "nothing", value.dump());
    if (found.at(key) != value && value.is_object() && found.at(key).is_object()) {
      return compare(found.at(key), value, absl::StrCat(prefix, key, "."));
    }
    if (found.at(key) != value) {
      return refuse(prefix + key, describe_json(found.at(key)), value.dump());
    }
  }
  for (const auto& [key, value] : found.items()) {
    if (!expected.contains(key)) {
      return refuse(prefix + printable(key), describe_json(value), "no such field");
    }
  }
  return absl::OkStatus();
}

}  // namespace

ordered_json gptq_quantization_config(const GptqGrid& base,
                                      const std::vector<Projection2d>& projections,
                                      const GptqGrids& grids, const std::string& tool_version) {
  ordered_json config = {{"quant_method", "gptq"},
                         {"method", "gptq"},
                         {"bits", base.bits},
                         {"group_size", base.group_size},
                         {"desc_act", false},
                         {"sym", base.symmetric},
                         {"lm_head", grids.contains(kHead)},
                         {"format", "gptq_v2"},
                         {"checkpoint_format", "gptq_v2"},
                         {"pack_dtype", "int32"},
                         {"true_sequential", true},
                         {"damp_percent", 0.01}};
  ordered_json dynamic = ordered_json::object();
  for (const Projection2d& projection : projections) {
    const GptqGrid& grid = grids.at(projection.name);
    if (grid == resolved(base, projection.input_size)) continue;
    const ordered_json exception = override_of(grid, projection.input_size);
    dynamic[expression_for(projection.name, grid)] = exception;
    for (const FusedProjection& fused : kFused) {
      if (shared_grid(fused, projection.name, grids)) {
        dynamic[expression_for(parent_of(projection.name) + fused.name, grid)] = exception;
      }
    }
  }
  if (!dynamic.empty()) config[kDynamic] = std::move(dynamic);
  config["meta"] = {{"quantizer", ordered_json::array({absl::StrCat("qaas:", tool_version)})}};
  return config;
}

absl::StatusOr<GptqGrids> parse_gptq_quantization_config(
    const json& config, const std::vector<Projection2d>& projections) {
  if (!config.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("quantization_config: found ", describe_json(config), ", expected an object"));
  }
  const auto base = parse_grid(config, "");
  if (!base.ok()) return base.status();
  json dynamic = json::object();
  if (const auto found = config.find(kDynamic); found != config.end() && found->is_object()) {
    dynamic = *found;
  }
  GptqGrids grids;
  for (const Projection2d& projection : projections) {
    GptqGrid grid = resolved(*base, projection.input_size);
    if (dynamic.contains(expression_for(projection.name, GptqGrid{}))) {
      grid = GptqGrid{};
    } else if (const std::string key = expression_for(projection.name, grid);
               dynamic.contains(key)) {
      const auto exception = parse_grid(dynamic.at(key), absl::StrCat(kDynamic, ".", key, "."));
      if (!exception.ok()) return exception.status();
      grid = resolved(*exception, projection.input_size);
    }
    if (grid.bits != 0 && projection.input_size % grid.group_size != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("quantization_config: group size ", grid.group_size, " does not divide the ",
                       projection.input_size, " inputs of '", projection.name, "'"));
    }
    grids[projection.name] = grid;
  }
  // Whatever else the object says must be what follows from these grids.
  json expected = gptq_quantization_config(*base, projections, grids, "");
  expected.erase("meta");
  json found = config;
  found.erase("meta");
  if (auto status = compare(found, expected, ""); !status.ok()) return status;
  return grids;
}

absl::Status check_fused_projections(const GptqGrids& grids) {
  for (const auto& [name, grid] : grids) {
    for (const FusedProjection& fused : kFused) {
      const std::string parent = parent_of(name);
      if (name != parent + fused.members[0]) continue;
      for (const char* member : fused.members) {
        const auto other = member == nullptr ? grids.end() : grids.find(parent + member);
        if (other == grids.end() || other->second == grid) continue;
        return absl::InvalidArgumentError(
            absl::StrCat("projections '", name, "' (", grid_text(grid), ") and '", other->first,
                         "' (", grid_text(other->second), ") differ, but vLLM loads them as one"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace qaas
