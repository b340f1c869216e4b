#include "workers/engine/data/special_ids.h"

#include <optional>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include "storage/checkpoint/config_fields.h"
#include "storage/checkpoint/strict_json.h"

namespace qaas {
namespace {

using nlohmann::json;

/// A template's entry {"SpecialToken": {"id": "<s>", "type_id": 0}}: the ids that "special_tokens"
/// gives for it.
absl::Status append_special(const json& entry, const json& special_tokens, ConfigFields& fields,
                            std::vector<int32_t>& ids) {
  const json& name = entry.value("id", json());
  const auto token = name.is_string() && special_tokens.is_object()
                         ? special_tokens.find(name.get_ref<const std::string&>())
                         : special_tokens.end();
  const bool known = name.is_string() && special_tokens.is_object() &&
                     token != special_tokens.end() && token->is_object() &&
                     token->contains("ids") && (*token)["ids"].is_array();
  if (!known) {
    fields.fail("single", absl::StrCat("names special token ", describe_json(name),
                                       ", which 'special_tokens' does not define"));
    return fields.status();
  }
  for (const json& id : (*token)["ids"]) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX) {
      fields.fail("special_tokens", absl::StrCat("holds the id ", describe_json(id)));
      return fields.status();
    }
    ids.push_back(id.get<int32_t>());
  }
  return absl::OkStatus();
}

absl::StatusOr<SpecialIds> parse_template(const json& object, const std::string& path) {
  ConfigFields fields(object, path + ".");
  fields.accept_only({"type", "single", "pair", "special_tokens"});
  const json single = object.value("single", json());
  const json special_tokens = object.value("special_tokens", json());
  if (!single.is_array()) {
    fields.fail("single", absl::StrCat("is ", describe_json(single), ", expected an array"));
  }
  if (!fields.status().ok()) return fields.status();
  SpecialIds ids;
  bool seen_text = false;
  for (const json& entry : single) {
    const bool one_key = entry.is_object() && entry.size() == 1 && entry.begin()->is_object();
    if (one_key && entry.begin().key() == "SpecialToken") {
      auto& side = seen_text ? ids.suffix : ids.prefix;
      if (auto status = append_special(*entry.begin(), special_tokens, fields, side);
          !status.ok()) {
        return status;
      }
    } else if (one_key && entry.begin().key() == "Sequence" && !seen_text &&
               entry.begin()->value("id", json()) == "A") {
      seen_text = true;
    } else {
      fields.fail("single", absl::StrCat("holds ", entry.dump(),
                                         ", accepted: special tokens around one sequence A"));
      return fields.status();
    }
  }
  if (!seen_text) fields.fail("single", "has no sequence A");
  if (!fields.status().ok()) return fields.status();
  return ids;
}

/// Adds the template of `object`, if it is or holds one, to `found`.
absl::Status find_template(const json& object, const std::string& path,
                           std::optional<SpecialIds>& found) {
  if (object.is_null()) return absl::OkStatus();
  if (!object.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat("field '", path, "': is ", describe_json(object),
                                                   ", expected an object or null"));
  }
  ConfigFields fields(object, path + ".");
  const std::string type = fields.string("type");
  if (type == "ByteLevel") {
    fields.accept_only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  } else if (type == "TemplateProcessing") {
    auto ids = parse_template(object, path);
    if (!ids.ok()) return ids.status();
    if (found) fields.fail("type", "is TemplateProcessing for the second time");
    found = *std::move(ids);
  } else if (type == "Sequence") {
    fields.accept_only({"type", "processors"});
    const json processors = object.value("processors", json());
    if (!processors.is_array()) fields.fail("processors", "expected an array");
    for (size_t i = 0; i < processors.size() && fields.status().ok(); ++i) {
      fields.absorb(
          find_template(processors[i], absl::StrCat(path, ".processors[", i, "]"), found));
    }
  } else {
    fields.fail("type",
                absl::StrCat("is '", type, "', accepted: TemplateProcessing, ByteLevel, Sequence"));
  }
  return fields.status();
}

}  // namespace

absl::StatusOr<SpecialIds> special_ids_from_config(const json& config, const TokenLookup& lookup) {
  ConfigFields fields(config, "");
  SpecialIds ids;
  const auto append = [&](const char* flag, const char* name, std::vector<int32_t>& side) {
    if (!fields.boolean(flag, false)) return;
    // Written as "<s>" or as {"content": "<s>", ...}.
    const json token = config.value(name, json());
    const json content = token.is_object() ? token.value("content", json()) : token;
    const int32_t id = content.is_string() ? lookup(content.get_ref<const std::string&>()) : -1;
    if (id < 0) {
      fields.fail(flag, absl::StrCat("is true, but '", name, "' is ", describe_json(content),
                                     ", which the tokenizer does not know"));
      return;
    }
    side.push_back(id);
  };
  append("add_bos_token", "bos_token", ids.prefix);
  append("add_eos_token", "eos_token", ids.suffix);
  if (!fields.status().ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer_config.json: ", fields.status().message()));
  }
  return ids;
}

absl::StatusOr<SpecialIds> special_ids_from_post_processor(const json& post_processor,
                                                           const json& config,
                                                           const TokenLookup& lookup) {
  std::optional<SpecialIds> found;
  if (auto status = find_template(post_processor, "post_processor", found); !status.ok()) {
    return status;
  }
  if (!found) return special_ids_from_config(config, lookup);
  if (!found->prefix.empty() && config.value("add_bos_token", json()) == false) {
    return absl::InvalidArgumentError(
        "field 'post_processor': puts a token in front of every text, but tokenizer_config.json "
        "says add_bos_token false; make the two agree");
  }
  return *std::move(found);
}

}  // namespace qaas
