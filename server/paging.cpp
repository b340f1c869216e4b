#include "server/paging.h"

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>
#include <openssl/sha.h>

#include "server/errors.h"

namespace qaas {
namespace {

constexpr int kDefaultPageSize = 50;
constexpr int kLargestPageSize = 1000;
constexpr size_t kTagBytes = 12;

// Binds a position to its query. Not a secret: rows are filtered by tenant in any case; the tag
// tells a token of another query, or a damaged one, from ours. Lengths keep the parts apart.
std::string tag(const PagedQuery& query, const std::string& position) {
  const std::string text = absl::StrCat("qaas page 1\n", query.tenant.size(), " ", query.tenant,
                                        "\n", query.method.size(), " ", query.method, "\n",
                                        query.parent.size(), " ", query.parent, "\n", position);
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  return {reinterpret_cast<const char*>(digest), kTagBytes};
}

}  // namespace

absl::StatusOr<int> page_size(int32_t requested) {
  if (requested < 0) {
    return invalid_field("page_size", absl::StrCat("found ", requested, "; expected 0 or more"));
  }
  if (requested == 0) return kDefaultPageSize;
  return requested < kLargestPageSize ? requested : kLargestPageSize;
}

std::string page_token(const PagedQuery& query, const std::string& position) {
  if (position.empty()) return "";
  return absl::WebSafeBase64Escape(absl::StrCat(tag(query, position), position));
}

absl::StatusOr<std::string> page_position(const PagedQuery& query, const std::string& token) {
  if (token.empty()) return std::string();
  std::string decoded;
  if (absl::WebSafeBase64Unescape(token, &decoded) && decoded.size() > kTagBytes) {
    const std::string position = decoded.substr(kTagBytes);
    if (page_token(query, position) == token) return position;
  }
  return invalid_field("page_token",
                       "not a token of this list; expected next_page_token of the page before, "
                       "with the same arguments");
}

}  // namespace qaas
