#include "bench/limits.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "batch_norm.h"
#include "bench/memory.h"
#include "conv/conv.h"

namespace convolt::bench {
namespace {

// f(first, bytes) for a part of [0, bytes) for each thread, in whole pages.
template <class F>
void for_each_part(int64_t bytes, int threads, F f) {
  const int64_t part = ((bytes + threads - 1) / threads + 4095) / 4096 * 4096;
#pragma omp parallel for schedule(static)
  for (int i = 0; i < threads; ++i) {
    const int64_t first = std::min(bytes, i * part);
    f(first, std::min(part, bytes - first));
  }
}

// Both start on 32 bytes.
void copy_past_caches(char* to, const char* from, int64_t bytes) {
  int64_t i = 0;
  for (; i + 32 <= bytes; i += 32)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i),
                        _mm256_load_si256(reinterpret_cast<const __m256i*>(from + i)));
  std::memcpy(to + i, from + i, static_cast<size_t>(bytes - i));
  _mm_sfence();
}

}  // namespace

void copy_memory(char* to, const char* from, int64_t bytes, int threads, bool past_caches) {
  for_each_part(bytes, threads, [=](int64_t first, int64_t count) {
    if (past_caches)
      copy_past_caches(to + first, from + first, count);
    else
      std::memcpy(to + first, from + first, static_cast<size_t>(count));
  });
}

Stopwatch::Stopwatch(Context& context) : context_(context), timer_(make_timer(context.device())) {}

double Stopwatch::time(const Work& work, const Work& before) {
  Queue& queue = context_.compute();
  queue.run([&](Stream s) {
    if (before) before(s);
    timer_->start(s);
    work(s);
    timer_->stop(s);
  });
  queue.synchronize();
  return timer_->milliseconds();
}

namespace {
constexpr int64_t kSweepChannels = 64;
}

Sweep::Sweep(Context& context) {
  rows_ = 2 * last_cache_bytes(context.device()) / (kSweepChannels * 4);
  memory_ =
      Buffer(context, rows_ * kSweepChannels * 4 + bn_backward_scratch(rows_, kSweepChannels) + kSweepChannels * 4);
  context.compute().run([this](Stream s) { fill_zero(s, memory_.data(), memory_.bytes()); });
  context.compute().synchronize();
}

void Sweep::operator()(Stream s) const {
  float* const out = memory_.as<float>() + rows_ * kSweepChannels;
  channel_sum(s, {DType::f32, {rows_, kSweepChannels}, memory_.data()}, out + kSweepChannels, out);
}

Copy::Copy(Stopwatch& stopwatch, const Sweep& sweep, int64_t bytes)
    : context_(stopwatch.context()), from_(context_, bytes), to_(context_, bytes) {
  context_.compute().run([this](Stream s) { fill_zero(s, from_.data(), from_.bytes()); });
  if (context_.device().is_cuda()) return;
  std::vector<std::function<double()>> ways;
  for (const bool streams : {false, true})
    ways.push_back([&, streams] {
      streams_ = streams;
      return stopwatch.time([&](Stream s) { (*this)(s); }, [&](Stream s) { sweep(s); });
    });
  const auto times = in_turn({.samples = 7, .seconds = 1}, ways);
  streams_ = summary_of(times[1]).min < summary_of(times[0]).min;
}

void Copy::operator()(Stream s) const {
  if (s.cuda) return context_.compute().copy(to_.data(), from_.data(), from_.bytes());
  copy_memory(to_.as<char>(), from_.as<const char>(), from_.bytes(), context_.threads(), streams_);
}

const char* Copy::how() const {
  return context_.device().is_cuda() ? "cudaMemcpyAsync" : streams_ ? "streaming stores" : "memcpy";
}

Limit Copy::limit(const std::vector<double>& times) const {
  const Summary ms = summary_of(times);
  return {how(), moved() * 1e3 / ms.min, moved() * 1e3 / ms.median};
}

Limit measure_copy(Stopwatch& stopwatch, const Sampling& sampling) {
  const Sweep sweep(stopwatch.context());
  const Copy copy(stopwatch, sweep, 2 * last_cache_bytes(stopwatch.context().device()));
  const auto take = [&] { return stopwatch.time([&](Stream s) { copy(s); }, [&](Stream s) { sweep(s); }); };
  return copy.limit(in_turn(sampling, {take})[0]);
}

Limit measure_matmul(Stopwatch& stopwatch, DType dtype, bool tf32, const Sampling& sampling) {
  Context& context = stopwatch.context();
  const int64_t side = context.device().is_cuda() ? 8192 : 1024;
  const LinearDesc desc{ConvPass::fprop, side, side, side, dtype, tf32};
  const int64_t bytes = side * side * size_of(dtype);
  const Buffer x = filled(context, dtype, side * side), w = filled(context, dtype, side * side), y(context, bytes);
  Limit best;
  for (const auto& kernel : context.conv().candidates(desc)) {
    const Buffer packed(context, kernel->packed_bytes()), workspace(context, kernel->workspace_bytes());
    context.compute().run([&](Stream s) {
      if (packed.bytes() > 0) kernel->pack(s, w.data(), packed.data());
    });
    const ConvArgs args{x.data(), packed.bytes() > 0 ? packed.data() : w.data(), y.data(), nullptr, workspace.data()};
    const Work work = [&](Stream s) { kernel->run(s, args); };
    const Summary ms = summary_of(in_turn(sampling, {[&] { return stopwatch.time(work); }})[0]);
    const double flops = 2.0 * static_cast<double>(side * side * side);
    if (flops * 1e3 / ms.min > best.best) best = {kernel->name(), flops * 1e3 / ms.min, flops * 1e3 / ms.median};
  }
  return best;
}

}  // namespace convolt::bench
