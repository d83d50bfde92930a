#include "convolt/error.h"

#include <new>

namespace convolt {

namespace {
template <class... Kinds>
bool is_one_of(const std::exception& error) {
  return (... || (dynamic_cast<const Kinds*>(&error) != nullptr));
}
}  // namespace

int exit_code_of(const std::exception& error) {
  if (is_one_of<UsageError, ShapeError>(error)) return 2;
  if (is_one_of<DataError>(error)) return 3;
  if (is_one_of<OutOfMemoryError, std::bad_alloc>(error)) return 5;
  if (is_one_of<DeviceError>(error)) return 4;
  return 1;
}

}  // namespace convolt
