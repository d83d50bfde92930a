// Convolution and matrix products, the one place with two providers: oneDNN on the CPU, cuDNN and cuBLASLt on CUDA, and
// beside both kernels of our own.
// A description goes in, runnable kernels come out; the planner picks one and gives it memory.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "conv/device_rates.h"
#include "convolt/context.h"
#include "convolt/tensor.h"

namespace convolt {

enum class ConvPass : uint8_t { fprop, dgrad, wgrad };

// A 2-d convolution of NHWC pictures with OHWI weights [out_c, kernel_h, kernel_w, in_c / groups].
struct ConvGeometry {
  int64_t n = 1, in_h = 1, in_w = 1, in_c = 1, out_c = 1;
  int kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1;
  Padding pad;
  int64_t groups = 1;
  int64_t out_h() const { return (in_h + pad.vertical() - dilation_h * (kernel_h - 1) - 1) / stride_h + 1; }
  int64_t out_w() const { return (in_w + pad.horizontal() - dilation_w * (kernel_w - 1) - 1) / stride_w + 1; }
  Shape x_shape() const { return {n, in_h, in_w, in_c}; }
  Shape y_shape() const { return {n, out_h(), out_w(), out_c}; }
  Shape w_shape() const { return {out_c, kernel_h, kernel_w, in_c / groups}; }
  // Multiply-adds times two, of any of the three passes.
  int64_t flops() const { return 2 * n * out_h() * out_w() * out_c * kernel_h * kernel_w * (in_c / groups); }
  std::string to_string() const;  // "n128 32x32x16 -> 32, 3x3 s2 p1"
  friend bool operator==(const ConvGeometry&, const ConvGeometry&) = default;
};

// What is done to x on load, and to the result on store. A pass that wants a fusion asks for candidates first: none
// means no.
enum class ConvPrologue : uint8_t { none, scale_bias, scale_bias_relu };
enum class ConvEpilogue : uint8_t {
  none,
  bias,
  bias_relu,
  bias_relu6,
  stats,
  drelu_bn_reduce,
  join,
  // Of linear layers: fprop also writes the ReLU's mask; wgrad also the gradient of the bias; dgrad sends its result
  // back through the ReLU before, by that mask, and sums it up for the bias before.
  bias_relu_mask,
  bias_gradient,
  drelu_bias_gradient
};

// Of windows over fewer channels, a stem's, cuDNN's engines waste most of their products: they multiply so many
// channels of a tap at a time.
constexpr int64_t kFewChannels = 64;

struct ConvDesc {
  ConvPass pass = ConvPass::fprop;
  ConvGeometry geometry;
  DType dtype = DType::f32;  // of x, w, y and of the weight gradient; accumulation is f32
  bool tf32 = false;         // f32 products may be rounded to tf32 (CUDA)
  ConvPrologue prologue = ConvPrologue::none;
  ConvEpilogue epilogue = ConvEpilogue::none;
  friend bool operator==(const ConvDesc&, const ConvDesc&) = default;
};

// A fully connected layer: x [rows, in], w [out, in], y [rows, out]; passes as a convolution's. Epilogues none, bias,
// bias_relu, bias_relu6 (fprop) and those of linear layers.
struct LinearDesc {
  ConvPass pass = ConvPass::fprop;
  int64_t rows = 1, in = 1, out = 1;
  DType dtype = DType::f32;
  bool tf32 = false;
  ConvEpilogue epilogue = ConvEpilogue::none;
};

// fprop reads x, w [, bias f32 [out_c]] and writes y; dgrad reads y (the gradient of the output) and w and writes x;
// wgrad reads x and y (the gradient) and writes w. All device memory; results overwrite. w is in the packed form where
// the kernel has one.
struct ConvArgs {
  void* x = nullptr;
  void* w = nullptr;
  void* y = nullptr;
  const float* bias = nullptr;
  void* workspace = nullptr;
  // Prologue of fprop and wgrad: relu(x * scale + bias) in place of x; scale and bias, [2, in_c], f16 where the
  // dtype is, else f32.
  const void* prologue = nullptr;
  // Epilogue stats of fprop: the plain sums over the rows of y and of its square, f32 [2, out_c].
  float* sums = nullptr;
  // Epilogue drelu_bn_reduce of dgrad: x becomes the gradient before relu(batch_norm(normalised_x)), and what that
  // batch norm's gradient needs: dgamma = sum x * xhat, dbeta = sum x, f32 [in_c]. coef: f32 [4, in_c] as in
  // kernels/batch_norm.h.
  const void* normalised_x = nullptr;
  const float *coef = nullptr, *gamma = nullptr, *beta = nullptr;
  float *dgamma = nullptr, *dbeta = nullptr;
  // Epilogue join of dgrad: x becomes what gradient_join() of kernels/block_end.h makes of it, gated by bits, with the
  // sums for normalised_x and for a second batch norm. joined: another gradient, may be null or x, or have every second
  // pixel of every second line alone (joined_thin); second_x may be null, then the rest of the second is not used.
  const void* joined = nullptr;
  bool joined_thin = false;
  const void* second_x = nullptr;
  const float* second_coef = nullptr;
  float *second_dgamma = nullptr, *second_dbeta = nullptr;
  // Of a linear layer in place of `bias`: [out], in the dtype, since matrix libraries take no other; and what its
  // epilogues write or read besides: the gradient of a bias, of the dtype too.
  const void* linear_bias = nullptr;
  void* bias_gradient = nullptr;
  // Bits: of a linear layer's ReLU, u8 [rows, mask_row_bytes] (kernels/activation.h), written or read; of join the gate
  // of block_end.h, read.
  void* mask = nullptr;
};

// Runs one description. Stateless after construction and usable from the thread that drives the compute queue.
class ConvKernel {
public:
  virtual ~ConvKernel() = default;
  // The library's name of the implementation ("jit:avx512_core", "cudnn engine 47"); contains "ref" for reference code.
  // Among the candidates of a description one name, with packed weights or without, is one computation: choices are
  // kept by it from one start to the next.
  virtual std::string name() const = 0;
  virtual int64_t workspace_bytes() const { return 0; }
  // The same bits each time.
  virtual bool repeatable() const { return true; }
  // True where the library computes in another type than asked and converts (shown by describe()).
  virtual bool widened() const { return false; }
  // Bytes of the library's own form of the weights (fprop, dgrad: read; wgrad: written); 0: plain OHWI of the dtype.
  virtual int64_t packed_bytes() const { return 0; }
  // Equal keys: one packed tensor serves both kernels.
  virtual std::string packed_format() const { return {}; }
  // plain (OHWI, dtype) -> packed, and for wgrad packed -> plain.
  virtual void pack(Stream, const void* /*plain*/, void* /*packed*/) const {}
  virtual void unpack(Stream, const void* /*packed*/, void* /*plain*/) const {}
  virtual void run(Stream s, const ConvArgs& args) const = 0;
};

class ConvProvider {
public:
  virtual ~ConvProvider() = default;
  // Best first, packing of the weights included; empty where the library has none. Thread-safe.
  virtual std::vector<std::unique_ptr<ConvKernel>> candidates(const ConvDesc& desc) = 0;
  virtual std::vector<std::unique_ptr<ConvKernel>> candidates(const LinearDesc& desc) = 0;
  // candidates(), and what a longer search finds besides: for tuning that takes its time. No name twice that was not.
  virtual std::vector<std::unique_ptr<ConvKernel>> all_candidates(const ConvDesc& desc) { return candidates(desc); }
  // What the bits of a result depend on: "oneDNN 2.6.3, Winograd AVX-512, 2 threads", "cuDNN 9.19.0".
  virtual std::string describe() const = 0;
  // Of how many channels in 16 bits its matrix units want multiples; 1: of any number.
  virtual int channel_alignment() const { return 1; }
  // Of such a device, not measured on this one: what weighs the costs of ops against each other.
  virtual DeviceRates rates() const = 0;
};

std::unique_ptr<ConvProvider> make_onednn_provider(int threads);

}  // namespace convolt
