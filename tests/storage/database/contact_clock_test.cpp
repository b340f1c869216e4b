#include "storage/database/contact_clock.h"

#include <gtest/gtest.h>

namespace qaas {
namespace {

using std::chrono::seconds;

ContactClock::TimePoint at(int second) { return ContactClock::TimePoint{seconds(1000 + second)}; }

TEST(ContactClock, ContactMustLastAWholeLease) {
  ContactClock contact(seconds(15), seconds(6));
  for (int second = 0; second < 15; second += 2) EXPECT_FALSE(contact.note(at(second), true));
  EXPECT_TRUE(contact.note(at(15), true));
  EXPECT_TRUE(contact.note(at(20), true));
}

TEST(ContactClock, OneFailureStartsItAnew) {
  ContactClock contact(seconds(15), seconds(6));
  for (int second = 0; second <= 20; second += 2) contact.note(at(second), true);
  EXPECT_FALSE(contact.note(at(22), false));
  for (int second = 24; second < 39; second += 5) EXPECT_FALSE(contact.note(at(second), true));
  EXPECT_TRUE(contact.note(at(39), true));
}

TEST(ContactClock, ALongSilenceIsABreak) {
  // A process that was stopped for a while has not seen what happened meanwhile.
  ContactClock contact(seconds(15), seconds(6));
  EXPECT_FALSE(contact.note(at(0), true));
  EXPECT_FALSE(contact.note(at(20), true));
  EXPECT_FALSE(contact.note(at(26), true));
  EXPECT_FALSE(contact.note(at(31), true));
  EXPECT_FALSE(contact.note(at(36), true));
  EXPECT_TRUE(contact.note(at(41), true));
}

}  // namespace
}  // namespace qaas
