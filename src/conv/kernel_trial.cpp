#include "conv/kernel_trial.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "activation.h"
#include "batch_norm.h"
#include "channels.h"
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
  if (desc.epilogue == ConvEpilogue::bias || desc.epilogue == ConvEpilogue::bias_relu ||
      desc.epilogue == ConvEpilogue::bias_relu6 || desc.epilogue == ConvEpilogue::bias_relu_mask) {
    Pattern bias = sums_.bias();
    bias_ = memory_of(context, {desc.geometry.out_c}, bias.dtype);
    fill(bias_, bias);
    bias.dtype = desc.dtype;
    linear_bias_ = memory_of(context, {desc.geometry.out_c}, bias.dtype);
    fill(linear_bias_, bias);
  }
  make_norm();
  make_linear();
  for (const int64_t place : places_) expected_.push_back(sums_(place));
}

void KernelTrial::make_norm() {
  const PatternNorm& n = sums_.norm();
  const int64_t channels = desc_.geometry.in_c;
  const auto put = [&](const Buffer& to, int64_t row, const std::vector<float>& values, DType dtype) {
    std::vector<char> stored(static_cast<size_t>(channels * size_of(dtype)));
    narrow(values.data(), stored.data(), dtype, channels);
    queue_.copy(to.as<char>() + row * channels * size_of(dtype), stored.data(), channels * size_of(dtype));
    queue_.synchronize();
  };
  if (desc_.prologue != ConvPrologue::none) {
    const DType dtype = desc_.dtype == DType::f16 ? DType::f16 : DType::f32;
    prologue_ = memory(context_, 2 * channels * size_of(dtype));
    put(prologue_, 0, n.scale, dtype);
    put(prologue_, 1, n.bias, dtype);
  }
  const bool joins = desc_.epilogue == ConvEpilogue::join,
             reduces = desc_.epilogue == ConvEpilogue::drelu_bn_reduce || joins;
  if (!reduces && desc_.epilogue != ConvEpilogue::stats) return;
  const Shape rows = reduces ? desc_.geometry.x_shape() : desc_.geometry.y_shape();
  for (Buffer* b : {&sums_found_, &sums_expected_}) *b = memory(context_, (joins ? 4 : 2) * rows[3] * 4);
  scratch_ = memory(context_, bn_backward_scratch(rows.elements() / rows[3], static_cast<int>(rows[3])));
  if (!reduces) return;
  normalised_ = memory_of(context_, rows, desc_.dtype);
  fill(normalised_, sums_.normalised());
  norm_ = memory(context_, 6 * channels * 4);
  int64_t row = 0;
  for (const auto* values : {&n.mean, &n.invstd, &n.scale, &n.bias, &n.gamma, &n.beta})
    put(norm_, row++, *values, DType::f32);
  if (joins) make_join();
}

void KernelTrial::make_join() {
  const Shape shape = desc_.geometry.x_shape();
  joined_ = memory_of(context_, shape, desc_.dtype);
  fill(joined_, sums_.joined());
  second_ = memory_of(context_, shape, desc_.dtype);
  fill(second_, sums_.first());
  mask_ = memory(context_, (shape.elements() + 7) / 8);
  repeat(queue_, mask_, sums_.mask().data(), static_cast<int64_t>(sums_.mask().size()));
}

// What a library writes to a mask is its own affair; one of all ones lets every gradient pass.
void KernelTrial::make_linear() {
  const ConvGeometry& g = desc_.geometry;
  const bool back = desc_.epilogue == ConvEpilogue::drelu_bias_gradient;
  if (back || desc_.epilogue == ConvEpilogue::bias_relu_mask) {
    mask_ = memory(context_, g.n * mask_row_bytes(back ? g.in_c : g.out_c));
    spoil(mask_);
  }
  if (!back && desc_.epilogue != ConvEpilogue::bias_gradient) return;
  const int64_t channels = back ? g.in_c : g.out_c;
  bias_gradient_ = memory_of(context_, {channels}, desc_.dtype);
  sums_expected_ = memory(context_, 4 * channels);
  scratch_ = memory(context_, scale_channels_scratch(g.n, channels));
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
  const int64_t norm_channels = norm_.bytes() > 0 ? desc_.geometry.in_c : 0;
  if (options_.packs_each_step) pack(s, kernel);
  kernel.run(s, {.x = x_.data(),
                 .w = packs ? packed_.data() : w_.data(),
                 .y = y_.data(),
                 .bias = bias_.as<const float>(),
                 .workspace = workspace_.data(),
                 .prologue = prologue_.data(),
                 .sums = desc_.epilogue == ConvEpilogue::stats ? sums_found_.as<float>() : nullptr,
                 .normalised_x = normalised_.data(),
                 .coef = norm_.as<const float>(),
                 .gamma = norm_.as<const float>() + 4 * norm_channels,
                 .beta = norm_.as<const float>() + 5 * norm_channels,
                 .dgamma = sums_found_.as<float>(),
                 .dbeta = sums_found_.as<float>() + norm_channels,
                 .joined = joined_.data(),
                 .second_x = second_.data(),
                 .second_coef = norm_.as<const float>(),
                 .second_dgamma = sums_found_.as<float>() + 2 * norm_channels,
                 .second_dbeta = sums_found_.as<float>() + 3 * norm_channels,
                 .linear_bias = linear_bias_.data(),
                 .bias_gradient = bias_gradient_.data(),
                 .mask = mask_.data()});
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

// The sums of an epilogue, against those of what it stored. It may have summed what it had before it was rounded.
std::string KernelTrial::wrong_sums() {
  if (sums_found_.bytes() == 0) return {};
  const Tensor stored{desc_.dtype, sums_.result_shape(), result()};
  const int64_t channels = stored.shape[3], rows = stored.elements() / channels;
  auto* const expected = sums_expected_.as<float>();
  queue_.run([&](Stream s) {
    if (desc_.epilogue == ConvEpilogue::stats) return channel_sums(s, stored, scratch_.as<float>(), expected);
    float* to = expected;
    for (const Buffer* x : {&normalised_, &second_}) {
      if (x->bytes() == 0) continue;
      bn_backward_reduce(s, stored, {desc_.dtype, stored.shape, x->data()}, {}, norm_.as<const float>(), {},
                         scratch_.as<float>(), to, to + channels);
      to += 2 * channels;
    }
  });
  std::vector<float> f(static_cast<size_t>(sums_found_.bytes() / 4)), e(f.size());
  queue_.copy(f.data(), sums_found_.data(), sums_found_.bytes());
  queue_.copy(e.data(), sums_expected_.data(), sums_expected_.bytes());
  queue_.synchronize();
  for (size_t i = 0; i < f.size(); ++i) {
    const auto right = static_cast<double>(e[i]);
    const double allowed = sums_.tolerance(0) * (std::sqrt(static_cast<double>(rows)) + std::fabs(right));
    if (!(std::fabs(static_cast<double>(f[i]) - right) <= allowed))
      return fmt::format("sum {} of channel {} is {}, expected {}", i / static_cast<size_t>(channels),
                         i % static_cast<size_t>(channels), f[i], e[i]);
  }
  return {};
}

// Of a bias, against the sums of what the kernel stored, or was given.
std::string KernelTrial::wrong_bias_gradient() {
  if (bias_gradient_.bytes() == 0) return {};
  const bool back = desc_.pass == ConvPass::dgrad;
  const Tensor summed{desc_.dtype, back ? desc_.geometry.x_shape() : desc_.geometry.y_shape(),
                      back ? x_.data() : y_.data()};
  const int64_t channels = summed.shape[3];
  queue_.run([&](Stream s) { channel_sum(s, summed, scratch_.as<float>(), sums_expected_.as<float>()); });
  std::vector<float> found(static_cast<size_t>(channels)), expected(found.size());
  std::vector<char> stored(static_cast<size_t>(bias_gradient_.bytes()));
  queue_.copy(stored.data(), bias_gradient_.data(), bias_gradient_.bytes());
  queue_.copy(expected.data(), sums_expected_.data(), sums_expected_.bytes());
  queue_.synchronize();
  widen(stored.data(), desc_.dtype, found.data(), channels);
  const double each = sums_.tolerance(0) * std::sqrt(static_cast<double>(desc_.geometry.n));
  for (size_t c = 0; c < found.size(); ++c) {
    const auto right = static_cast<double>(expected[c]);
    if (!(std::fabs(static_cast<double>(found[c]) - right) <= each + sums_.tolerance(right)))
      return fmt::format("the gradient of bias {} is {}, expected {}", c, found[c], expected[c]);
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
    spoil(sums_found_);
    spoil(bias_gradient_);
    spoil(desc_.pass == ConvPass::fprop ? y_ : desc_.pass == ConvPass::dgrad ? x_ : w_);
    queue_.run([&](Stream s) {
      if (!options_.packs_each_step) pack(s, kernel);
      run(s, kernel);
    });
    if (std::string wrong = wrong_places(); !wrong.empty()) return wrong;
    if (std::string wrong = wrong_sums(); !wrong.empty()) return wrong;
    if (std::string wrong = wrong_bias_gradient(); !wrong.empty()) return wrong;
    // Elsewhere a gradient passes or not as the ReLU's operand is rounded.
    if (desc_.epilogue == ConvEpilogue::drelu_bn_reduce) return {};
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
  const auto all = [&](Stream s) {
    for (int i = 0; i < runs; ++i) run(s, kernel);
  };
  // As steps run: as one recorded graph, or what a launch costs the host would count more than short kernels do.
  std::unique_ptr<RecordedWork> recorded;
  if (context_.device().is_cuda()) {
    recorded = queue_.record_work(all);
    queue_.launch(*recorded);
    queue_.synchronize();
  }
  const int64_t start = options_.clock();
  if (recorded)
    queue_.launch(*recorded);
  else
    queue_.run(all);
  queue_.synchronize();
  return std::max<int64_t>(1, (options_.clock() - start) / runs);
}

}  // namespace convolt
