#include "storage/database/contact_clock.h"

namespace qaas {

bool ContactClock::note(TimePoint now, bool reached) {
  if (reached && (!in_contact_ || now - last_ >= longest_gap_)) since_ = now;
  in_contact_ = reached;
  last_ = now;
  return in_contact_ && now - since_ >= lease_;
}

}  // namespace qaas
