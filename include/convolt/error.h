// Errors. Everything the library throws derives from convolt::Error; each message is one sentence that names the layer
// or file, what was expected, what was found, and the remedy where there is one. Destructors never throw.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>

namespace convolt {

class Error : public std::runtime_error {
public:
  using std::runtime_error::runtime_error;
};

// Shapes of a network that do not fit together.
class ShapeError : public Error {
  using Error::Error;
};
// No such device, a driver or library that is missing, a kernel that failed.
class DeviceError : public Error {
  using Error::Error;
};
// A memory request that the device or the host cannot serve.
class OutOfMemoryError : public DeviceError {
  using DeviceError::DeviceError;
};
// A data set or a file of one that cannot be used.
class DataError : public Error {
  using Error::Error;
};
// Bytes that are not what their format promises (a checkpoint, an IDX file).
class FormatError : public DataError {
  using DataError::DataError;
};
// A call or a command line that makes no sense.
class UsageError : public Error {
  using Error::Error;
};
// The loss became infinite or not a number.
class NonFiniteError : public Error {
  using Error::Error;
};

// What the program exits with and the C interface returns for an error: 2 usage (and shapes), 3 data, 4 device, 5 out
// of memory (std::bad_alloc too), 1 anything else.
int exit_code_of(const std::exception& error);

}  // namespace convolt
