#include "conv/plain_sums.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "conv/widen.h"
#include "core/philox.h"

namespace convolt {
namespace {

int64_t terms_of(const ConvDesc& d) {
  const ConvGeometry& g = d.geometry;
  const int64_t taps = int64_t{g.kernel_h} * g.kernel_w;
  switch (d.pass) {
    case ConvPass::fprop:
      return taps * (g.in_c / g.groups);
    case ConvPass::dgrad:
      return taps * (g.out_c / g.groups);
    default:
      return g.n * g.out_h() * g.out_w();
  }
}

// With operands of variance 1/3 and 1/3 * scale^2 the sums come out about 1/3 in size. A power of two rounds nothing.
float scale_of(int64_t terms) { return std::exp2(-std::round(std::log2(std::sqrt(static_cast<float>(terms))))); }

Shape result_of(const ConvDesc& d) {
  return d.pass == ConvPass::fprop   ? d.geometry.y_shape()
         : d.pass == ConvPass::dgrad ? d.geometry.x_shape()
                                     : d.geometry.w_shape();
}

int64_t flat(const Shape& s, int64_t a, int64_t b, int64_t c, int64_t d) {
  return ((a * s[1] + b) * s[2] + c) * s[3] + d;
}

PatternNorm pattern_norm(const ConvDesc& d) {
  PatternNorm n;
  const bool prologue = d.prologue != ConvPrologue::none;
  if (!prologue && d.epilogue != ConvEpilogue::drelu_bn_reduce && d.epilogue != ConvEpilogue::join) return n;
  const auto channels = static_cast<uint64_t>(d.geometry.in_c);
  for (uint64_t c = 0; c < channels; ++c) {
    const Philox4 r = philox(5, c, 0);
    const auto number = [&](int i) { return 2 * uniform(r.v[i]) - 1; };
    n.mean.push_back(0.5F * number(0));
    n.invstd.push_back(1 + 0.5F * number(1));
    n.gamma.push_back(number(2));
    n.beta.push_back(0.5F * number(3));
    n.scale.push_back(n.gamma.back() * n.invstd.back());
    n.bias.push_back(n.beta.back() - n.mean.back() * n.scale.back());
  }
  if (prologue && d.dtype == DType::f16)
    for (auto* values : {&n.scale, &n.bias}) {
      std::vector<uint16_t> stored(channels);
      narrow(values->data(), stored.data(), d.dtype, d.geometry.in_c);
      widen(stored.data(), d.dtype, values->data(), d.geometry.in_c);
    }
  return n;
}

}  // namespace

Pattern::Pattern(uint64_t seed, float scale, DType type) : dtype(type), values(kPeriod) {
  for (int64_t i = 0; i < kPeriod; ++i)
    values[static_cast<size_t>(i)] = scale * (2 * uniform(philox(seed, static_cast<uint64_t>(i), 0).v[0]) - 1);
  std::vector<uint16_t> stored(values.size() * 2);
  narrow(values.data(), stored.data(), dtype, kPeriod);
  widen(stored.data(), dtype, values.data(), kPeriod);
}

bool PlainSums::known(const ConvDesc& d) {
  const bool forward = d.pass == ConvPass::fprop;
  if (d.prologue == ConvPrologue::scale_bias || (d.prologue != ConvPrologue::none && d.pass == ConvPass::dgrad))
    return false;
  switch (d.epilogue) {
    case ConvEpilogue::none:
      return true;
    case ConvEpilogue::stats:
      return forward;
    case ConvEpilogue::drelu_bn_reduce:
    case ConvEpilogue::join:
      return d.pass == ConvPass::dgrad;
    case ConvEpilogue::bias_gradient:
      return d.pass == ConvPass::wgrad && d.prologue == ConvPrologue::none;
    case ConvEpilogue::drelu_bias_gradient:
      return d.pass == ConvPass::dgrad;
    default:
      return forward && d.prologue == ConvPrologue::none;
  }
}

PlainSums::PlainSums(const ConvDesc& desc)
    : desc_(desc),
      terms_(terms_of(desc)),
      shape_(result_of(desc)),
      first_(1, 1, desc.dtype),
      second_(2, scale_of(terms_), desc.dtype),
      // Wider where results are cut at 6, so that some are.
      bias_(3, desc.epilogue == ConvEpilogue::bias_relu6 ? 8.F : 1.F, desc.dtype),
      normalised_(6, 1, desc.dtype),
      joined_(7, 1, desc.dtype),
      norm_(pattern_norm(desc)) {
  bias_.dtype = DType::f32;  // of a convolution; its values lie in both types
  if (desc.epilogue != ConvEpilogue::join) return;
  for (uint64_t i = 0; i < Pattern::kPeriod; ++i) mask_.push_back(static_cast<uint8_t>(philox(8, i, 0).v[0]));
}

double PlainSums::loaded(int64_t i) const {
  if (desc_.prologue == ConvPrologue::none) return first_(i);
  const auto c = static_cast<size_t>(i % desc_.geometry.in_c);
  return std::max(0.0, first_(i) * static_cast<double>(norm_.scale[c]) + static_cast<double>(norm_.bias[c]));
}

// What the ReLU of an epilogue was given.
double PlainSums::before_relu(int64_t i) const {
  const auto c = static_cast<size_t>(i % desc_.geometry.in_c);
  return normalised_(i) * static_cast<double>(norm_.scale[c]) + static_cast<double>(norm_.bias[c]);
}

bool PlainSums::is_open(int64_t i) const {
  switch (desc_.epilogue) {
    case ConvEpilogue::drelu_bn_reduce:
      return before_relu(i) > 0;
    case ConvEpilogue::join:
      return (mask_[static_cast<size_t>(i / 8 % Pattern::kPeriod)] >> i % 8 & 1) != 0;
    default:
      return true;
  }
}

double PlainSums::operator()(int64_t i) const {
  const int64_t d = i % shape_[3], c = i / shape_[3] % shape_[2], b = i / (shape_[3] * shape_[2]) % shape_[1],
                a = i / (shape_[3] * shape_[2] * shape_[1]);
  if (desc_.pass == ConvPass::dgrad) {
    if (!is_open(i)) return 0;
    return dgrad(a, b, c, d) + (desc_.epilogue == ConvEpilogue::join ? joined_(i) : 0);
  }
  if (desc_.pass == ConvPass::wgrad) return wgrad(a, b, c, d);
  double y = fprop(a, b, c, d);
  if (desc_.epilogue == ConvEpilogue::none || desc_.epilogue == ConvEpilogue::stats) return y;
  y += bias_(d);
  if (desc_.epilogue == ConvEpilogue::bias_relu || desc_.epilogue == ConvEpilogue::bias_relu_mask) y = std::max(y, 0.0);
  if (desc_.epilogue == ConvEpilogue::bias_relu6) y = std::clamp(y, 0.0, 6.0);
  return y;
}

double PlainSums::fprop(int64_t n, int64_t oh, int64_t ow, int64_t k) const {
  const ConvGeometry& g = desc_.geometry;
  const Shape x = g.x_shape(), w = g.w_shape();
  const int64_t channels = w[3], first_channel = k / (g.out_c / g.groups) * channels;
  double sum = 0;
  for (int64_t kh = 0; kh < g.kernel_h; ++kh)
    for (int64_t kw = 0; kw < g.kernel_w; ++kw) {
      const int64_t ih = oh * g.stride_h - g.pad.top + kh * g.dilation_h;
      const int64_t iw = ow * g.stride_w - g.pad.left + kw * g.dilation_w;
      if (ih < 0 || ih >= g.in_h || iw < 0 || iw >= g.in_w) continue;
      const int64_t at = flat(x, n, ih, iw, first_channel), tap = flat(w, k, kh, kw, 0);
      for (int64_t c = 0; c < channels; ++c) sum += loaded(at + c) * second_(tap + c);
    }
  return sum;
}

double PlainSums::dgrad(int64_t n, int64_t ih, int64_t iw, int64_t c) const {
  const ConvGeometry& g = desc_.geometry;
  const Shape y = g.y_shape(), w = g.w_shape();
  const int64_t group = c / w[3], outputs = g.out_c / g.groups;
  double sum = 0;
  for (int64_t kh = 0; kh < g.kernel_h; ++kh)
    for (int64_t kw = 0; kw < g.kernel_w; ++kw) {
      const int64_t down = ih + g.pad.top - kh * g.dilation_h, right = iw + g.pad.left - kw * g.dilation_w;
      if (down < 0 || right < 0 || down % g.stride_h != 0 || right % g.stride_w != 0) continue;
      const int64_t oh = down / g.stride_h, ow = right / g.stride_w;
      if (oh >= y[1] || ow >= y[2]) continue;
      for (int64_t k = group * outputs; k < (group + 1) * outputs; ++k)
        sum += first_(flat(y, n, oh, ow, k)) * second_(flat(w, k, kh, kw, c % w[3]));
    }
  return sum;
}

double PlainSums::wgrad(int64_t k, int64_t kh, int64_t kw, int64_t c) const {
  const ConvGeometry& g = desc_.geometry;
  const Shape x = g.x_shape(), y = g.y_shape();
  const int64_t channel = k / (g.out_c / g.groups) * (g.in_c / g.groups) + c;
  double sum = 0;
  for (int64_t n = 0; n < g.n; ++n)
    for (int64_t oh = 0; oh < y[1]; ++oh) {
      const int64_t ih = oh * g.stride_h - g.pad.top + kh * g.dilation_h;
      if (ih < 0 || ih >= g.in_h) continue;
      for (int64_t ow = 0; ow < y[2]; ++ow) {
        const int64_t iw = ow * g.stride_w - g.pad.left + kw * g.dilation_w;
        if (iw < 0 || iw >= g.in_w) continue;
        sum += loaded(flat(x, n, ih, iw, channel)) * second_(flat(y, n, oh, ow, k));
      }
    }
  return sum;
}

// Of 16 bits the rounding of the result, and of the points of Winograd's algorithm in some libraries, is most of the
// error; of f32 it is that of the sums, which grows with their length.
double PlainSums::tolerance(double expected) const {
  const double rounding = desc_.dtype == DType::bf16  ? 0x1p-6
                          : desc_.dtype == DType::f16 ? 0x1p-8
                          : desc_.tf32                ? 0x1p-8
                                                      : 0x1p-15;
  return (rounding + 0x1p-22 * std::sqrt(static_cast<double>(terms_))) * (std::fabs(expected) + 0.5);
}

std::vector<int64_t> PlainSums::places() const {
  constexpr int64_t kMostProducts = 8 << 20;
  const auto count = static_cast<size_t>(std::clamp<int64_t>(kMostProducts / terms_, 32, 256));
  // Whether a gradient passes where the ReLU was given about 0 is up to rounding.
  const auto certain = [&](int64_t i) {
    return desc_.epilogue != ConvEpilogue::drelu_bn_reduce || std::fabs(before_relu(i)) > 0x1p-6;
  };
  std::vector<int64_t> places;
  for (int corner = 0; corner < 16; ++corner) {
    const auto end = [&](int axis) { return (corner >> axis & 1) != 0 ? shape_[axis] - 1 : 0; };
    const int64_t place = flat(shape_, end(0), end(1), end(2), end(3));
    if (certain(place)) places.push_back(place);
  }
  for (uint64_t draw = places.size(); places.size() < count && draw < 16 * count; ++draw) {
    const Philox4 r = philox(4, draw, 0);
    const auto place =
        static_cast<int64_t>(((uint64_t{r.v[0]} << 32) | r.v[1]) % static_cast<uint64_t>(shape_.elements()));
    if (certain(place)) places.push_back(place);
  }
  return places;
}

}  // namespace convolt
