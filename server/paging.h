#pragma once

#include <cstdint>
#include <string>

#include <absl/status/statusor.h>

/// List calls (AIP-158): page sizes and opaque page tokens.
namespace qaas {

/// Rows to return for a request's page_size: 0 means 50, more than 1000 means 1000;
/// kInvalidArgument for a negative one.
absl::StatusOr<int> page_size(int32_t requested);

/// The query a page belongs to; a token is good for no other.
struct PagedQuery {
  std::string tenant;
  std::string method;  ///< "ListJobs"
  std::string parent;  ///< parent or other arguments that select rows
};

/// An opaque token for the page after `position`; empty for an empty position (the last page).
std::string page_token(const PagedQuery& query, const std::string& position);

/// The position in `token`; empty for an empty token. kInvalidArgument
/// for a token that this service did not make for this query.
absl::StatusOr<std::string> page_position(const PagedQuery& query, const std::string& token);

}  // namespace qaas
