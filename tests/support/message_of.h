// What an exception says.
#pragma once

#include <string>

namespace convolt::test {

// Calls `call`, which must throw E, and returns the message.
template <class E, class Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const E& error) {
    return error.what();
  }
  return "(nothing was thrown)";
}

}  // namespace convolt::test
