// libFuzzer over the safetensors reader: any bytes are read or refused with a FormatError. Not part of the CMake build,
// which is g++'s. By hand:
//
//   clang++-14 -std=c++20 -O1 -g -march=x86-64-v3 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
//   -Iinclude -Isrc \
//     tests/fuzz/safetensors_fuzz.cpp src/io/safetensors.cpp src/io/atomic_file.cpp src/io/descriptor.cpp -lfmt -o
//     build/safetensors_fuzz
//   mkdir -p build/corpus && build/safetensors_fuzz -max_total_time=120 -max_len=2000 build/corpus tests/io/golden
#include <cstdlib>

#include "convolt/error.h"
#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto file = convolt::SafeTensors::parse({data, data + size}, "fuzz");
    size_t total = 0;
    for (const convolt::SafeTensor& tensor : file.tensors()) {
      total += tensor.bytes.size();
      if (tensor.dtype.find('F') != std::string::npos && tensor.to_floats().size() > size) std::abort();
      if (file.find(tensor.name) != &tensor) std::abort();
    }
    if (total > size) std::abort();
  } catch (const convolt::FormatError&) {
    return 0;  // refused, as it should be
  }
  return 0;
}
