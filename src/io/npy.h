// NumPy's .npy, written as version 1.0, read as any of 1.0 to 3.0:
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace convolt {

// What an .npy says about its array.
struct NpyHeader {
  std::string type;  // as NumPy names it: "|u1", "<i8", "<f4"
  bool fortran_order = false;
  std::vector<int64_t> shape;  // each 0 or more, their product below 2^62
  int64_t data = 0;            // where the elements begin in the file
};
// `begin`: the first bytes of the file, at least 128 KiB of it or all. Throws FormatError that begins with `name`.
NpyHeader read_npy_header(std::span<const uint8_t> begin, const std::string& name);

// Writes `values`, float32 [rows, columns] in C order, through AtomicFile. Throws UsageError when there are not rows x
// columns values, and Error when the file cannot be written.
void write_npy(const std::string& path, std::span<const float> values, int64_t rows, int64_t columns);

}  // namespace convolt
