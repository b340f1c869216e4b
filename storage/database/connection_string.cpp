#include "storage/database/connection_string.h"

#include <cstdlib>
#include <libpq-fe.h>
#include <map>
#include <memory>
#include <utility>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>

namespace qaas {
namespace {

using Keywords = std::map<std::string, std::string>;

absl::StatusOr<Keywords> parse(const std::string& dsn) {
  char* error = nullptr;
  const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> options(
      PQconninfoParse(dsn.c_str(), &error), &PQconninfoFree);
  PQfreemem(error);
  if (options == nullptr) {
    return absl::InvalidArgumentError(
        "the database connection string is neither a postgresql:// URI nor a list of "
        "keyword=value pairs that libpq knows");
  }
  Keywords keywords;
  for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option) {
    if (option->val != nullptr) keywords[option->keyword] = option->val;
  }
  return keywords;
}

std::string to_dsn(const Keywords& keywords) {
  std::string dsn;
  for (const auto& [keyword, value] : keywords) {
    absl::StrAppend(&dsn, dsn.empty() ? "" : " ", keyword, "='",
                    absl::StrReplaceAll(value, {{"\\", "\\\\"}, {"'", "\\'"}}), "'");
  }
  return dsn;
}

// Later -c options win, so ours go in front. PGOPTIONS counts only while the string has no options
// of its own: taking it over keeps it alive.
void prepend_option(Keywords& keywords, const std::string& name, const std::string& value) {
  auto options = keywords.find("options");
  if (options == keywords.end()) {
    const char* inherited = std::getenv("PGOPTIONS");
    options = keywords.emplace("options", inherited == nullptr ? "" : inherited).first;
  }
  const std::string escaped = absl::StrReplaceAll(value, {{"\\", "\\\\"}, {" ", "\\ "}});
  options->second =
      absl::StrCat("-c ", name, "=", escaped, options->second.empty() ? "" : " ", options->second);
}

}  // namespace

absl::StatusOr<std::string> with_timeouts(const std::string& dsn,
                                          std::chrono::milliseconds statement_timeout) {
  absl::StatusOr<Keywords> keywords = parse(dsn);
  if (!keywords.ok()) return keywords.status();
  // A dead peer is noticed within about 25 s on an idle connection, 20 s on a busy one.
  keywords->emplace("connect_timeout", "5");
  keywords->emplace("keepalives", "1");
  keywords->emplace("keepalives_idle", "10");
  keywords->emplace("keepalives_interval", "5");
  keywords->emplace("keepalives_count", "3");
  keywords->emplace("tcp_user_timeout", "20000");
  keywords->emplace("fallback_application_name", "qaas");
  const std::string limit = absl::StrCat(statement_timeout.count());
  prepend_option(*keywords, "statement_timeout", limit);
  prepend_option(*keywords, "idle_in_transaction_session_timeout", limit);
  return to_dsn(*keywords);
}

absl::StatusOr<std::string> with_server_setting(const std::string& dsn, const std::string& name,
                                                const std::string& value) {
  absl::StatusOr<Keywords> keywords = parse(dsn);
  if (!keywords.ok()) return keywords.status();
  prepend_option(*keywords, name, value);
  return to_dsn(*keywords);
}

}  // namespace qaas
