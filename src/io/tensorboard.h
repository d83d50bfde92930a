// TensorBoard's event files: records (length, masked CRC-32C, data, masked CRC-32C; TensorFlow's record_writer.h) of
// Event messages (TensorFlow's event.proto and summary.proto).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/append_file.h"

namespace convolt {

// CRC-32C (Castagnoli; RFC 3720, appendix B.4).
uint32_t crc32c(std::string_view bytes);

// How many values lie in each of 64 equal parts of their range; of the finite ones.
struct Histogram {
  double min = 0, max = 0, count = 0, sum = 0, sum_of_squares = 0;
  std::vector<double> limits;  // the upper end of each part
  std::vector<double> counts;
};
Histogram histogram_of(std::span<const float> values);

// A picture as a PNG file.
struct EncodedPicture {
  int height = 0, width = 0, channels = 3;
  std::string png;
};

// One event file of a run. A folder may hold several, one for each time that the run was gone on with. Move-only; not
// thread-safe. Throws Error with path and reason when the file cannot be written; an event that does not fit is taken
// back. Each event has reached the operating system when the call returns.
class EventFile {
public:
  // A new file in `folder`, which is made where it is missing, named by time and process so that TensorBoard reads it
  // after the older ones. It tells TensorBoard to forget what those say of `first_step` and of later steps.
  EventFile(const std::string& folder, int64_t first_step);

  void scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values);
  void picture(int64_t step, const std::string& tag, const EncodedPicture& picture);
  void histogram(int64_t step, const std::string& tag, const Histogram& histogram);

private:
  void write(int64_t step, int field, std::string_view message);

  AppendFile file_;
};

}  // namespace convolt
