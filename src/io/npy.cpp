#include "io/npy.h"

#include <fmt/format.h>

#include "convolt/error.h"
#include "io/atomic_file.h"

namespace convolt {

void write_npy(const std::string& path, std::span<const float> values, int64_t rows, int64_t columns) {
  int64_t expected = 0;
  if (rows < 0 || columns < 0 || __builtin_mul_overflow(rows, columns, &expected) ||
      values.size() != static_cast<size_t>(expected))
    throw UsageError(
        fmt::format("cannot write {}: expected {} x {} values, found {}", path, rows, columns, values.size()));
  std::string header = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, columns);
  constexpr size_t kPrefix = 10, kAlignment = 64;
  header.resize((kPrefix + header.size() + 1 + kAlignment - 1) / kAlignment * kAlignment - kPrefix - 1, ' ');
  header += '\n';
  const std::string prefix{'\x93',
                           'N',
                           'U',
                           'M',
                           'P',
                           'Y',
                           '\x01',
                           '\x00',
                           static_cast<char>(header.size() & 0xff),
                           static_cast<char>(header.size() >> 8)};
  AtomicFile file(path);
  file.write(prefix + header);
  file.write(std::as_bytes(values));
  file.commit();
}

}  // namespace convolt
