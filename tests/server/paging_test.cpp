#include "server/paging.h"

#include "tests/support/status_matchers.h"

namespace qaas {
namespace {

using ::qaas::testing::StatusIs;

const PagedQuery kQuery{.tenant = "t", .method = "ListArtifacts", .parent = "p"};

TEST(Paging, TokenLeadsBackToItsPosition) {
  for (const std::string& position : {std::string("a"), std::string("\0\xff/", 3)}) {
    QAAS_ASSERT_OK_AND_ASSIGN(const std::string found,
                              page_position(kQuery, page_token(kQuery, position)));
    EXPECT_EQ(found, position);
  }
  EXPECT_EQ(page_token(kQuery, ""), "");
  EXPECT_EQ(page_position(kQuery, "").value(), "");
}

TEST(Paging, TokenIsGoodForItsQueryOnly) {
  const std::string token = page_token(kQuery, "a");
  PagedQuery other = kQuery;
  other.tenant = "u";
  EXPECT_THAT(page_position(other, token),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::_));
  other = kQuery;
  other.method = "ListJobs";
  EXPECT_THAT(page_position(other, token),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::_));
  other = kQuery;
  other.parent = "q";
  EXPECT_THAT(page_position(other, token),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::_));
}

TEST(Paging, AnyChangedCharacterIsRefused) {
  const std::string token = page_token(kQuery, "position");
  for (size_t i = 0; i < token.size(); ++i) {
    std::string changed = token;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    EXPECT_THAT(page_position(kQuery, changed),
                StatusIs(absl::StatusCode::kInvalidArgument, ::testing::_))
        << i;
  }
}

TEST(Paging, SizesAreDefaultedAndClamped) {
  EXPECT_EQ(page_size(0).value(), 50);
  EXPECT_EQ(page_size(7).value(), 7);
  EXPECT_EQ(page_size(5000).value(), 1000);
  EXPECT_THAT(page_size(-1), StatusIs(absl::StatusCode::kInvalidArgument, ::testing::_));
}

}  // namespace
}  // namespace qaas
