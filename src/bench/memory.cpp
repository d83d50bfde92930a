#include "bench/memory.h"

#include <algorithm>

#include "activation.h"
#include "core/philox.h"

namespace convolt::bench {
namespace {

constexpr int64_t kPattern = 1 << 18;  // elements that are drawn; the rest repeats them

}  // namespace

Buffer filled(Context& context, DType dtype, int64_t elements, float low, float high) {
  std::vector<float> drawn;
  for (uint64_t i = 0; static_cast<int64_t>(drawn.size()) < std::min(kPattern, elements); ++i)
    for (const uint32_t bits : philox(0, i, 0).v) drawn.push_back(low + (high - low) * uniform(bits));
  const Buffer pattern = uploaded(context, drawn);
  Buffer memory(context, elements * size_of(dtype));
  context.compute().run([&](Stream s) {
    for (int64_t first = 0; first < elements; first += kPattern) {
      const Shape part{std::min(kPattern, elements - first)};
      cast(s, {DType::f32, part, pattern.data()}, {dtype, part, memory.as<char>() + first * size_of(dtype)});
    }
  });
  context.compute().synchronize();
  return memory;
}

Buffer filled_bytes(Context& context, int64_t bytes) {
  std::vector<uint8_t> drawn;
  for (uint64_t i = 0; static_cast<int64_t>(drawn.size()) < std::min(kPattern, bytes); ++i)
    for (const uint32_t bits : philox(1, i, 0).v)
      for (int shift = 0; shift < 32; shift += 8) drawn.push_back(static_cast<uint8_t>(bits >> shift));
  Buffer memory(context, bytes);
  for (int64_t first = 0; first < bytes; first += kPattern)
    context.compute().copy(memory.as<char>() + first, drawn.data(), std::min(kPattern, bytes - first));
  context.compute().synchronize();
  return memory;
}

}  // namespace convolt::bench
