#include "conv/kernel_trial.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "conv/widen.h"

namespace convolt {
namespace {

constexpr int64_t kEndElements = 1 << 20;  // of each end of a long result

Buffer memory(Context& context, int64_t bytes) { return {context, bytes, Buffer::Kind::tuning}; }
Buffer memory_of(Context& context, const Shape& shape, DType dtype) {
  return memory(context, shape.elements() * size_of(dtype));
}

// The buffer holds `bytes` of the queue's making over and over.
void repeat(Queue& queue, const Buffer& buffer, const void* bytes, int64_t count) {
  if (buffer.bytes() == 0) return;
  auto* to = buffer.as<char>();
  int64_t filled = std::min(buffer.bytes(), count);
  queue.copy(to, bytes, filled);
  while (filled < buffer.bytes()) {
    const int64_t more = std::min(filled, buffer.bytes() - filled);
    queue.copy(to + filled, to, more);
    filled += more;
  }
  queue.synchronize();
}

}  // namespace

Clock steady_clock() {
  return [] {
    const auto since = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
  };
}

KernelTrial::KernelTrial(Context& context, const ConvDesc& desc, TrialOptions options)
    : context_(context),
      queue_(context.compute()),
      desc_(desc),
      options_(std::move(options)),
      sums_(desc),
      x_(memory_of(context, desc.geometry.x_shape(), desc.dtype)),
      w_(memory_of(context, desc.geometry.w_shape(), desc.dtype)),
      y_(memory_of(context, desc.geometry.y_shape(), desc.dtype)),
      packed_(memory(context, options_.packed_bytes)),
      workspace_(memory(context, options_.workspace_bytes)),
      places_(sums_.places()) {
  fill(desc.pass == ConvPass::dgrad ? y_ : x_, sums_.first());
  fill(desc.pass == ConvPass::wgrad ? y_ : w_, sums_.second());
  if (desc.epilogue != ConvEpilogue::none) {
    bias_ = memory(context, desc.geometry.out_c * 4);
    fill(bias_, sums_.bias());
  }
  for (const int64_t place : places_) expected_.push_back(sums_(place));
}

void* KernelTrial::result() const {
  const Buffer& buffer = desc_.pass == ConvPass::fprop ? y_ : desc_.pass == ConvPass::dgrad ? x_ : w_;
  return buffer.data();
}

void KernelTrial::fill(const Buffer& buffer, const Pattern& pattern) {
  std::vector<char> stored(pattern.values.size() * static_cast<size_t>(size_of(pattern.dtype)));
  narrow(pattern.values.data(), stored.data(), pattern.dtype, Pattern::kPeriod);
  repeat(queue_, buffer, stored.data(), static_cast<int64_t>(stored.size()));
}

// With bytes that are NaN in every floating type: what a kernel leaves out shows.
void KernelTrial::spoil(const Buffer& buffer) {
  const std::vector<unsigned char> ones(4096, 0xff);
  repeat(queue_, buffer, ones.data(), static_cast<int64_t>(ones.size()));
}

void KernelTrial::pack(Stream s, const ConvKernel& kernel) const {
  if (kernel.packed_bytes() > 0 && desc_.pass != ConvPass::wgrad) kernel.pack(s, w_.data(), packed_.data());
}

void KernelTrial::run(Stream s, const ConvKernel& kernel) const {
  const bool packs = kernel.packed_bytes() > 0;
  if (options_.packs_each_step) pack(s, kernel);
  kernel.run(s, {.x = x_.data(),
                 .w = packs ? packed_.data() : w_.data(),
                 .y = y_.data(),
                 .bias = bias_.as<const float>(),
                 .workspace = workspace_.data()});
  if (packs && desc_.pass == ConvPass::wgrad) kernel.unpack(s, packed_.data(), w_.data());
}

std::vector<float> KernelTrial::read(int64_t first, int64_t count) {
  const int64_t size = size_of(desc_.dtype);
  std::vector<char> stored(static_cast<size_t>(count * size));
  queue_.copy(stored.data(), static_cast<const char*>(result()) + first * size, count * size);
  queue_.synchronize();
  std::vector<float> values(static_cast<size_t>(count));
  widen(stored.data(), desc_.dtype, values.data(), count);
  return values;
}

KernelTrial::Ends KernelTrial::read_ends() {
  const int64_t all = sums_.result_shape().elements(), first = std::min(all, kEndElements);
  const int64_t last = std::min(all - first, kEndElements);
  return {read(0, first), read(all - last, last)};
}

std::string KernelTrial::wrong_places() {
  const int64_t size = size_of(desc_.dtype);
  std::vector<char> stored(places_.size() * static_cast<size_t>(size));
  for (size_t i = 0; i < places_.size(); ++i)
    queue_.copy(stored.data() + i * static_cast<size_t>(size), static_cast<const char*>(result()) + places_[i] * size,
                size);
  queue_.synchronize();
  std::vector<float> found(places_.size());
  widen(stored.data(), desc_.dtype, found.data(), static_cast<int64_t>(found.size()));
  for (size_t i = 0; i < places_.size(); ++i) {
    const double error = std::fabs(static_cast<double>(found[i]) - expected_[i]);
    if (!(error <= sums_.tolerance(expected_[i])))  // NaN too
      return fmt::format("element {} is {}, expected {:.6g}", places_[i], found[i], expected_[i]);
  }
  return {};
}

std::string KernelTrial::differs(const std::vector<float>& found, const std::vector<float>& expected) const {
  for (size_t i = 0; i < found.size(); ++i) {
    const auto e = static_cast<double>(expected[i]);
    if (!(std::fabs(static_cast<double>(found[i]) - e) <= 2 * sums_.tolerance(e)))
      return fmt::format("an element is {}, and {} by '{}'", found[i], expected[i], right_name_);
  }
  return {};
}

std::string KernelTrial::check(const ConvKernel& kernel) {
  try {
    if (desc_.pass == ConvPass::wgrad) spoil(packed_);
    spoil(desc_.pass == ConvPass::fprop ? y_ : desc_.pass == ConvPass::dgrad ? x_ : w_);
    queue_.run([&](Stream s) {
      if (!options_.packs_each_step) pack(s, kernel);
      run(s, kernel);
    });
    if (std::string wrong = wrong_places(); !wrong.empty()) return wrong;
    Ends ends = read_ends();
    if (!right_name_.empty()) {
      std::string wrong = differs(ends.first, right_.first);
      return wrong.empty() ? differs(ends.last, right_.last) : wrong;
    }
    right_ = std::move(ends);
    right_name_ = kernel.name();
  } catch (const std::exception& e) {
    return e.what();
  }
  return {};
}

int64_t KernelTrial::time(const ConvKernel& kernel, int runs) {
  if (!options_.packs_each_step) queue_.run([&](Stream s) { pack(s, kernel); });
  queue_.synchronize();
  const int64_t start = options_.clock();
  queue_.run([&](Stream s) {
    for (int i = 0; i < runs; ++i) run(s, kernel);
  });
  queue_.synchronize();
  return std::max<int64_t>(1, (options_.clock() - start) / runs);
}

}  // namespace convolt
