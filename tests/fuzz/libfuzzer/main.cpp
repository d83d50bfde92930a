// libFuzzer's side of the targets: CONVOLT_FUZZ_TARGET names one, CONVOLT_FUZZ_SEEDS a folder that gets its seeds.
#include <cstdlib>
#include <iostream>

#include "fuzz/targets.h"
#include "support/temp_folder.h"

namespace {

const convolt::test::FuzzTarget* target = nullptr;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const char *name = std::getenv("CONVOLT_FUZZ_TARGET"), *folder = std::getenv("CONVOLT_FUZZ_SEEDS");
  for (const auto& candidate : convolt::test::fuzz_targets())
    if (name != nullptr && candidate.name == name) target = &candidate;
  if (target == nullptr) {
    std::cerr << "CONVOLT_FUZZ_TARGET names no target of tests/fuzz/targets.h\n";
    std::exit(2);
  }
  int n = 0;
  if (folder != nullptr)
    for (const auto& seed : target->seeds())
      convolt::test::put_contents(std::string(folder) + "/seed" + std::to_string(n++),
                                  std::string(seed.begin(), seed.end()));
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  target->read({data, size});
  return 0;
}
