#pragma once

#include <cstdlib>

namespace convolt::test {

// What has to hold whatever the bytes; a finding where it does not.
inline void demand(bool holds) {
  if (!holds) std::abort();
}

}  // namespace convolt::test
