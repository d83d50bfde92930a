// NumPy's .npy, version 1.0: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace convolt {

// Writes `values`, float32 [rows, columns] in C order, through AtomicFile. Throws UsageError when there are not rows x
// columns values, and Error when the file cannot be written.
void write_npy(const std::string& path, std::span<const float> values, int64_t rows, int64_t columns);

}  // namespace convolt
