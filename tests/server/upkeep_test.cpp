#include "server/upkeep.h"

#include <gtest/gtest.h>

namespace qaas {
namespace {

using std::chrono::seconds;

constexpr DatabaseContact::Time kStart{seconds(1000)};

TEST(DatabaseContact, LastsOnlyAfterAFullLeaseOfAnswers) {
  DatabaseContact contact(seconds(6));
  EXPECT_FALSE(contact.lasted(seconds(15)));
  for (int second = 0; second < 15; second += 2) contact.answered(kStart + seconds(second));
  EXPECT_FALSE(contact.lasted(seconds(15)));
  contact.answered(kStart + seconds(16));
  EXPECT_TRUE(contact.lasted(seconds(15)));
}

TEST(DatabaseContact, OneFailureStartsItAnew) {
  DatabaseContact contact(seconds(6));
  for (int second = 0; second <= 20; second += 2) contact.answered(kStart + seconds(second));
  contact.failed();
  EXPECT_FALSE(contact.lasted(seconds(15)));
  contact.answered(kStart + seconds(22));
  EXPECT_FALSE(contact.lasted(seconds(15)));
}

TEST(DatabaseContact, ALongSilenceIsABreak) {
  // A process that was stopped for a while has not seen what happened meanwhile.
  DatabaseContact contact(seconds(6));
  contact.answered(kStart);
  contact.answered(kStart + seconds(20));
  EXPECT_FALSE(contact.lasted(seconds(15)));
}

}  // namespace
}  // namespace qaas
