// The readers of files that come from elsewhere, for fuzzing: each takes any bytes, and reads or refuses them with the
// errors that its header promises. Anything else (another exception, a crash, a wrong size) is a finding.
#pragma once

#include <cstdint>
#include <ostream>
#include <span>
#include <string>
#include <vector>

namespace convolt::test {

struct FuzzTarget {
  std::string name;
  void (*read)(std::span<const uint8_t> bytes);
  std::vector<std::vector<uint8_t>> (*seeds)();  // good files to begin from
};
inline void PrintTo(const FuzzTarget& target, std::ostream* out) { *out << target.name; }
// checkpoint, network, configuration, idx, cifar, packed, numpy, manifest, tuning, index, tar, zip.
const std::vector<FuzzTarget>& fuzz_targets();

}  // namespace convolt::test
