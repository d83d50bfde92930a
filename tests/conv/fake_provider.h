// Kernels that compute rightly, or not, and take as long as they say by a clock of their own.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <map>

#include "conv/autotune.h"
#include "reference/conv.h"

namespace convolt::test {

struct FakeSpec {
  std::string name;
  int64_t cost = 1'000'000;  // nanoseconds of a run
  int64_t workspace = 0;
  bool repeatable = true;
  int64_t pack_cost = -1;  // of packing or unpacking; negative: takes plain weights
  // What is done to the right result, f32, before it is written; an exception is one that the kernel throws.
  std::function<void(std::vector<double>&)> spoil = {};
  // The same of an epilogue's sums: two for each channel, or the gradient of a bias.
  std::function<void(std::vector<double>&)> spoil_sums = {};
  bool forgets_prologue = false;  // multiplies x as it is
  bool leaves_out_last = false;   // does not write the last element
  bool rounds_to_tf32 = false;
  int64_t sums_cost = 0;  // of the epilogue stats, beside `cost`
};

// What the fakes share.
struct FakeDevice {
  std::atomic<int64_t> now{0};
  std::map<std::string, int> runs;  // touched by the queue's thread, read after a synchronisation
  Clock clock() {
    return [this] { return now.load(); };
  }
};

class FakeKernel final : public ConvKernel {
public:
  FakeKernel(FakeSpec spec, const ConvDesc& desc, FakeDevice& device)
      : spec_(std::move(spec)), desc_(desc), device_(device) {}
  std::string name() const override { return spec_.name; }
  int64_t workspace_bytes() const override { return spec_.workspace; }
  bool repeatable() const override { return spec_.repeatable; }
  int64_t packed_bytes() const override { return spec_.pack_cost >= 0 ? weights() * 4 : 0; }
  void pack(Stream, const void* plain, void* packed) const override { convert(plain, packed); }
  void unpack(Stream, const void* packed, void* plain) const override { convert(packed, plain); }

  void run(Stream, const ConvArgs& a) const override {
    ++device_.runs[spec_.name];
    device_.now += spec_.cost;
    const ConvGeometry& g = desc_.geometry;
    const int64_t xs = g.x_shape().elements(), ys = g.y_shape().elements();
    switch (desc_.pass) {
      case ConvPass::fprop:
        return write_fprop(reference::conv_fprop(g, loaded(a, xs), read_weights(a.w), nullptr), a);
      case ConvPass::dgrad:
        return write_dgrad(reference::conv_dgrad(g, read(a.y, ys), read_weights(a.w)), a);
      case ConvPass::wgrad: {
        std::vector<double> dw = reference::conv_wgrad(g, loaded(a, xs), read(a.y, ys));
        if (packed_bytes() > 0)
          for (double& v : dw) v = -v;
        write_bias_gradient(ConvEpilogue::bias_gradient, read(a.y, ys), g.out_c, a);
        return write(std::move(dw), a.w);
      }
    }
  }

private:
  std::vector<double> loaded(const ConvArgs& a, int64_t count) const {
    std::vector<double> x = read(a.x, count);
    if (desc_.prologue == ConvPrologue::none || spec_.forgets_prologue) return x;
    const auto channels = static_cast<size_t>(desc_.geometry.in_c);
    const std::vector<double> norm = read(a.prologue, 2 * desc_.geometry.in_c);
    for (size_t i = 0; i < x.size(); ++i)
      x[i] = std::max(0.0, x[i] * norm[i % channels] + norm[channels + i % channels]);
    return x;
  }
  void write_fprop(const std::vector<double>& y, const ConvArgs& a) const {
    if (desc_.epilogue == ConvEpilogue::stats) {
      device_.now += spec_.sums_cost;
      const auto channels = static_cast<size_t>(desc_.geometry.out_c);
      std::vector<double> sums(2 * channels);
      for (size_t i = 0; i < y.size(); ++i) {
        sums[i % channels] += y[i];
        sums[channels + i % channels] += y[i] * y[i];
      }
      if (spec_.spoil_sums) spec_.spoil_sums(sums);
      std::copy(sums.begin(), sums.end(), a.sums);
    }
    write(y, a.y);
  }
  void write_dgrad(std::vector<double> dx, const ConvArgs& a) const {
    if (desc_.epilogue == ConvEpilogue::drelu_bn_reduce) {
      const auto channels = static_cast<size_t>(desc_.geometry.in_c);
      const std::vector<double> x = read(a.normalised_x, static_cast<int64_t>(dx.size()));
      const std::vector<double> coef = read(a.coef, 4 * desc_.geometry.in_c);
      std::vector<double> sums(2 * channels);
      for (size_t i = 0; i < dx.size(); ++i) {
        const size_t c = i % channels;
        if (x[i] * coef[2 * channels + c] + coef[3 * channels + c] <= 0) dx[i] = 0;
        sums[c] += dx[i] * (x[i] - coef[c]) * coef[channels + c];
        sums[channels + c] += dx[i];
      }
      if (spec_.spoil_sums) spec_.spoil_sums(sums);
      std::copy_n(sums.begin(), channels, a.dgamma);
      std::copy_n(sums.begin() + desc_.geometry.in_c, channels, a.dbeta);
    }
    if (desc_.epilogue == ConvEpilogue::join) join(dx, a);
    write_bias_gradient(ConvEpilogue::drelu_bias_gradient, dx, desc_.geometry.in_c, a);
    write(std::move(dx), a.x);
  }
  void join(std::vector<double>& dx, const ConvArgs& a) const {
    const auto channels = static_cast<size_t>(desc_.geometry.in_c), all = dx.size();
    const std::vector<double> other = read(a.joined, static_cast<int64_t>(all));
    const auto* const bits = static_cast<const uint8_t*>(a.mask);
    for (size_t i = 0; i < all; ++i) dx[i] = (bits[i / 8] >> i % 8 & 1) != 0 ? dx[i] + other[i] : 0;
    std::vector<double> sums(4 * channels);
    const std::pair<const void*, const float*> norms[] = {{a.normalised_x, a.coef}, {a.second_x, a.second_coef}};
    for (size_t k = 0; k < 2; ++k) {
      const std::vector<double> x = read(norms[k].first, static_cast<int64_t>(all));
      const std::vector<double> coef = read(norms[k].second, 2 * desc_.geometry.in_c);
      for (size_t i = 0; i < all; ++i) {
        const size_t c = i % channels;
        sums[2 * k * channels + c] += dx[i] * (x[i] - coef[c]) * coef[channels + c];
        sums[(2 * k + 1) * channels + c] += dx[i];
      }
    }
    if (spec_.spoil_sums) spec_.spoil_sums(sums);
    float* const to[] = {a.dgamma, a.dbeta, a.second_dgamma, a.second_dbeta};
    for (size_t k = 0; k < 4; ++k) std::copy_n(sums.begin() + static_cast<int64_t>(k * channels), channels, to[k]);
  }
  void write_bias_gradient(ConvEpilogue epilogue, const std::vector<double>& rows, int64_t channels,
                           const ConvArgs& a) const {
    if (desc_.epilogue != epilogue) return;
    std::vector<double> sums(static_cast<size_t>(channels));
    for (size_t i = 0; i < rows.size(); ++i) sums[i % sums.size()] += rows[i];
    if (spec_.spoil_sums) spec_.spoil_sums(sums);
    std::copy(sums.begin(), sums.end(), static_cast<float*>(a.bias_gradient));
  }
  int64_t weights() const { return desc_.geometry.w_shape().elements(); }
  // The packed form: with the sign turned.
  void convert(const void* from, void* to) const {
    device_.now += spec_.pack_cost;
    for (int64_t i = 0; i < weights(); ++i) static_cast<float*>(to)[i] = -static_cast<const float*>(from)[i];
  }
  std::vector<double> read_weights(const void* from) const {
    std::vector<double> w = read(from, weights());
    if (packed_bytes() > 0)
      for (double& v : w) v = -v;
    return w;
  }
  std::vector<double> read(const void* from, int64_t count) const {
    const auto* values = static_cast<const float*>(from);
    std::vector<double> read(values, values + count);
    if (spec_.rounds_to_tf32)
      for (double& v : read) v = static_cast<double>(tf32(static_cast<float>(v)));
    return read;
  }
  static float tf32(float f) {
    uint32_t bits = 0;
    std::memcpy(&bits, &f, 4);
    bits = (bits + 0x1000U) & ~0x1fffU;
    std::memcpy(&f, &bits, 4);
    return f;
  }
  void write(std::vector<double> values, void* to) const {
    if (spec_.spoil) spec_.spoil(values);
    for (size_t i = 0; i + (spec_.leaves_out_last ? 1 : 0) < values.size(); ++i)
      static_cast<float*>(to)[i] = static_cast<float>(values[i]);
  }

  FakeSpec spec_;
  ConvDesc desc_;
  FakeDevice& device_;
};

class FakeProvider final : public ConvProvider {
public:
  std::vector<FakeSpec> specs, more;  // more: found by the longer search only
  std::string version = "fake 1";
  FakeDevice device;

  std::vector<std::unique_ptr<ConvKernel>> candidates(const ConvDesc& desc) override {
    std::vector<std::unique_ptr<ConvKernel>> kernels;
    for (const FakeSpec& spec : specs) kernels.push_back(std::make_unique<FakeKernel>(spec, desc, device));
    return kernels;
  }
  std::vector<std::unique_ptr<ConvKernel>> all_candidates(const ConvDesc& desc) override {
    std::vector<std::unique_ptr<ConvKernel>> kernels = candidates(desc);
    for (const FakeSpec& spec : more) kernels.push_back(std::make_unique<FakeKernel>(spec, desc, device));
    return kernels;
  }
  std::vector<std::unique_ptr<ConvKernel>> candidates(const LinearDesc& d) override {
    ConvDesc same{.pass = d.pass, .dtype = d.dtype};
    same.geometry.n = d.rows;
    same.geometry.in_c = d.in;
    same.geometry.out_c = d.out;
    return candidates(same);
  }
  std::string describe() const override { return version; }
  DeviceRates rates() const override { return {.copy = 1, .f16 = 1, .bf16 = 1, .tf32 = 1, .f32 = 1}; }
};

}  // namespace convolt::test
