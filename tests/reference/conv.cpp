#include "reference/conv.h"

#include "reference/arrays.h"

namespace convolt::reference {
namespace {

// Visits every product of a convolution once: f(index in x, index in w, index in y). All three passes are sums of these
// products, with one factor and the sum exchanged. Padding contributes nothing and is not visited.
template <class F>
void for_each_product(const ConvGeometry& g, F f) {
  const int64_t group_in = g.in_c / g.groups, group_out = g.out_c / g.groups;
  for (int64_t n = 0; n < g.n; ++n)
    for (int64_t oh = 0; oh < g.out_h(); ++oh)
      for (int64_t ow = 0; ow < g.out_w(); ++ow)
        for (int64_t o = 0; o < g.out_c; ++o)
          for (int kh = 0; kh < g.kernel_h; ++kh)
            for (int kw = 0; kw < g.kernel_w; ++kw) {
              const int64_t h = oh * g.stride_h - g.pad.top + kh * g.dilation_h;
              const int64_t w = ow * g.stride_w - g.pad.left + kw * g.dilation_w;
              if (h < 0 || h >= g.in_h || w < 0 || w >= g.in_w) continue;
              for (int64_t i = 0; i < group_in; ++i)
                f(((n * g.in_h + h) * g.in_w + w) * g.in_c + o / group_out * group_in + i,
                  ((o * g.kernel_h + kh) * g.kernel_w + kw) * group_in + i,
                  ((n * g.out_h() + oh) * g.out_w() + ow) * g.out_c + o);
            }
}

ConvGeometry as_conv(const LinearDesc& d) { return {.n = d.rows, .in_c = d.in, .out_c = d.out}; }

}  // namespace

std::vector<double> conv_fprop(const ConvGeometry& g, const std::vector<double>& x, const std::vector<double>& w,
                               const std::vector<double>* bias) {
  std::vector<double> y = zeros(g.y_shape());
  if (bias)
    for (size_t i = 0; i < y.size(); ++i) y[i] = bias->at(i % static_cast<size_t>(g.out_c));
  for_each_product(g, [&](int64_t ix, int64_t iw, int64_t iy) {
    y[static_cast<size_t>(iy)] += x[static_cast<size_t>(ix)] * w[static_cast<size_t>(iw)];
  });
  return y;
}

std::vector<double> conv_dgrad(const ConvGeometry& g, const std::vector<double>& dy, const std::vector<double>& w) {
  std::vector<double> dx = zeros(g.x_shape());
  for_each_product(g, [&](int64_t ix, int64_t iw, int64_t iy) {
    dx[static_cast<size_t>(ix)] += dy[static_cast<size_t>(iy)] * w[static_cast<size_t>(iw)];
  });
  return dx;
}

std::vector<double> conv_wgrad(const ConvGeometry& g, const std::vector<double>& x, const std::vector<double>& dy) {
  std::vector<double> dw = zeros(g.w_shape());
  for_each_product(g, [&](int64_t ix, int64_t iw, int64_t iy) {
    dw[static_cast<size_t>(iw)] += x[static_cast<size_t>(ix)] * dy[static_cast<size_t>(iy)];
  });
  return dw;
}

std::vector<double> linear_fprop(const LinearDesc& d, const std::vector<double>& x, const std::vector<double>& w,
                                 const std::vector<double>* bias) {
  return conv_fprop(as_conv(d), x, w, bias);
}
std::vector<double> linear_dgrad(const LinearDesc& d, const std::vector<double>& dy, const std::vector<double>& w) {
  return conv_dgrad(as_conv(d), dy, w);
}
std::vector<double> linear_wgrad(const LinearDesc& d, const std::vector<double>& x, const std::vector<double>& dy) {
  return conv_wgrad(as_conv(d), x, dy);
}

std::vector<double> bias_gradient(const std::vector<double>& dy, int64_t channels) {
  std::vector<double> db(static_cast<size_t>(channels));
  for (size_t i = 0; i < dy.size(); ++i) db[i % db.size()] += dy[i];
  return db;
}

}  // namespace convolt::reference
