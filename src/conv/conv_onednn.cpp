// Convolution and fully connected layers on the CPU by oneDNN 2.6 or 3.x; the differences between the two are in this
// file alone. Activations are NHWC; weights take the library's own form (`any`), since plain ones fall to reference
// code.
#include <dnnl.hpp>

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "conv/conv.h"
#include "conv/conv_depthwise.h"
#include "conv/widen.h"
#include "conv/winograd.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace convolt {
namespace {

// oneDNN lays out its work for the number of OpenMP threads of the thread that makes a primitive: make it that of the
// compute queue.
class ThreadCount {
public:
#ifdef _OPENMP
  explicit ThreadCount(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~ThreadCount() { omp_set_num_threads(before_); }
#else
  explicit ThreadCount(int) {}
#endif
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

private:
  [[maybe_unused]] int before_ = 0;
};

using dnnl::memory;
using dnnl::prop_kind;
using Dims = memory::dims;

memory::data_type library_type(DType t) {
  return t == DType::f32 ? memory::data_type::f32 : t == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f16;
}

// What both kinds of layer come down to: descriptions of the operands and, for convolutions, the geometry.
struct Problem {
  ConvPass pass = ConvPass::fprop;
  ConvEpilogue epilogue = ConvEpilogue::none;
  memory::desc x, w_any, w_plain, y, bias;
  bool convolution = true;
  Dims strides, dilations, padding, padding_end;
};

Problem problem_of(const ConvDesc& d, DType dtype) {
  const ConvGeometry& g = d.geometry;
  const auto type = library_type(dtype);
  const int64_t in = g.in_c / g.groups, out = g.out_c / g.groups, kh = g.kernel_h, kw = g.kernel_w;
  Problem p;
  p.pass = d.pass;
  p.epilogue = d.epilogue;
  p.x = memory::desc({g.n, g.in_c, g.in_h, g.in_w}, type, memory::format_tag::nhwc);
  p.y = memory::desc({g.n, g.out_c, g.out_h(), g.out_w()}, type, memory::format_tag::nhwc);
  // OHWI, by strides: the logical order is (G,) O, I, H, W.
  if (g.groups == 1) {
    p.w_plain = memory::desc({g.out_c, in, kh, kw}, type, Dims{kh * kw * in, 1, kw * in, in});
    p.w_any = memory::desc({g.out_c, in, kh, kw}, type, memory::format_tag::any);
  } else {
    p.w_plain = memory::desc({g.groups, out, in, kh, kw}, type, Dims{out * kh * kw * in, kh * kw * in, 1, kw * in, in});
    p.w_any = memory::desc({g.groups, out, in, kh, kw}, type, memory::format_tag::any);
  }
  p.bias = memory::desc({g.out_c}, memory::data_type::f32, memory::format_tag::a);
  p.strides = {g.stride_h, g.stride_w};
  p.dilations = {g.dilation_h - 1, g.dilation_w - 1};
  p.padding = {g.pad.top, g.pad.left};
  p.padding_end = {g.pad.bottom, g.pad.right};
  return p;
}

Problem problem_of(const LinearDesc& d, DType dtype) {
  const auto type = library_type(dtype);
  Problem p;
  p.pass = d.pass;
  p.epilogue = d.epilogue;
  p.convolution = false;
  p.x = memory::desc({d.rows, d.in}, type, memory::format_tag::ab);
  p.y = memory::desc({d.rows, d.out}, type, memory::format_tag::ab);
  p.w_plain = memory::desc({d.out, d.in}, type, memory::format_tag::ab);
  p.w_any = memory::desc({d.out, d.in}, type, memory::format_tag::any);
  p.bias = memory::desc({d.out}, type, memory::format_tag::a);
  return p;
}

dnnl::primitive_attr attributes(const Problem& p) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  dnnl::post_ops ops;
#if DNNL_VERSION_MAJOR >= 3
  if (p.epilogue == ConvEpilogue::bias_relu) ops.append_eltwise(dnnl::algorithm::eltwise_relu, 0, 0);
  if (p.epilogue == ConvEpilogue::bias_relu6) ops.append_eltwise(dnnl::algorithm::eltwise_clip, 0, 6);
#else
  if (p.epilogue == ConvEpilogue::bias_relu) ops.append_eltwise(1, dnnl::algorithm::eltwise_relu, 0, 0);
  if (p.epilogue == ConvEpilogue::bias_relu6) ops.append_eltwise(1, dnnl::algorithm::eltwise_clip, 0, 6);
#endif
  attr.set_post_ops(ops);
  return attr;
}

#if DNNL_VERSION_MAJOR >= 3
memory::dims dims_of(const memory::desc& d) { return d.get_dims(); }

// Layouts that agree in all of this are the same; The early ones of oneDNN 3 have no get_blob().
std::string description_of(const memory::desc& d) {
  std::string text = std::to_string(static_cast<int>(d.get_data_type())) + " " + std::to_string(d.get_size());
  for (const memory::dims& part :
       {d.get_dims(), d.get_padded_dims(), d.get_strides(), d.get_inner_blks(), d.get_inner_idxs()})
    for (const auto value : part) text += " " + std::to_string(value);
  return text;
}
#else
memory::dims dims_of(const memory::desc& d) { return d.dims(); }

std::string description_of(const memory::desc& d) { return {reinterpret_cast<const char*>(&d.data), sizeof d.data}; }
#endif

// Weight gradients that oneDNN 2.6.3 makes wrong with AVX-512, by any amount, some of them with writes beyond its
// memory; found by a sweep over geometries against plain sums, and reproduced with the library alone.
bool is_broken(const Problem& p, std::string_view implementation) {
  if (!p.convolution || p.pass != ConvPass::wgrad || !implementation.starts_with("jit")) return false;
  const Dims x = dims_of(p.x), w = dims_of(p.w_plain);  // [N, C, H, W], [(G,) O, I, H, W]
  const bool strided = p.strides[0] > 1 || p.strides[1] > 1;
  if (implementation.find("_1x1") != std::string_view::npos) return strided && w[w.size() - 3] % 16 != 0;
  // Windows that are dilated downwards: seen of pictures wider than 28 and channels that do not fill its blocks. And
  // pictures of one column.
  return implementation.starts_with("jit_bf16") && (p.dilations[0] > 0 || (x[3] == 1 && p.strides[1] > 1));
}

// The library's first implementation that is right; what `pd` was made of must still be there.
template <class PrimitiveDesc>
PrimitiveDesc first_right(const Problem& p, PrimitiveDesc pd) {
  while (is_broken(p, pd.impl_info_str()))
    if (!pd.next_impl()) throw dnnl::error(dnnl_unimplemented, "all implementations are broken");
  return pd;
}

#if DNNL_VERSION_MAJOR >= 3
auto conv_forward(const Problem& p, prop_kind kind, const memory::desc& bias, const dnnl::primitive_attr& attr,
                  const dnnl::engine& e) {
  return dnnl::convolution_forward::primitive_desc(e, kind, dnnl::algorithm::convolution_direct, p.x, p.w_any, bias,
                                                   p.y, p.strides, p.dilations, p.padding, p.padding_end, attr);
}
auto conv_data(const Problem& p, const dnnl::primitive_attr& attr, const dnnl::engine& e) {
  return dnnl::convolution_backward_data::primitive_desc(e, dnnl::algorithm::convolution_direct, p.x, p.w_any, p.y,
                                                         p.strides, p.dilations, p.padding, p.padding_end,
                                                         conv_forward(p, prop_kind::forward_training, {}, {}, e), attr);
}
auto conv_weights(const Problem& p, const dnnl::primitive_attr& attr, const dnnl::engine& e) {
  const auto forward = conv_forward(p, prop_kind::forward_training, {}, {}, e);
  return first_right(p, dnnl::convolution_backward_weights::primitive_desc(e, dnnl::algorithm::convolution_direct, p.x,
                                                                           p.w_any, p.y, p.strides, p.dilations,
                                                                           p.padding, p.padding_end, forward, attr));
}
auto linear_forward(const Problem& p, prop_kind kind, const memory::desc& bias, const dnnl::primitive_attr& attr,
                    const dnnl::engine& e) {
  return dnnl::inner_product_forward::primitive_desc(e, kind, p.x, p.w_any, bias, p.y, attr);
}
auto linear_data(const Problem& p, const dnnl::primitive_attr& attr, const dnnl::engine& e) {
  return dnnl::inner_product_backward_data::primitive_desc(
      e, p.x, p.w_any, p.y, linear_forward(p, prop_kind::forward_training, {}, {}, e), attr);
}
auto linear_weights(const Problem& p, const dnnl::primitive_attr& attr, const dnnl::engine& e) {
  return dnnl::inner_product_backward_weights::primitive_desc(
      e, p.x, p.w_any, p.y, linear_forward(p, prop_kind::forward_training, {}, {}, e), attr);
}
#else
auto conv_forward(const Problem& p, prop_kind kind, const memory::desc& bias, const dnnl::primitive_attr& attr,
                  const dnnl::engine& e) {
  const dnnl::convolution_forward::desc d(kind, dnnl::algorithm::convolution_direct, p.x, p.w_any, bias, p.y, p.strides,
                                          p.dilations, p.padding, p.padding_end);
  return dnnl::convolution_forward::primitive_desc(d, attr, e);
}
auto conv_data(const Problem& p, const dnnl::primitive_attr& attr, const dnnl::engine& e) {
  const dnnl::convolution_backward_data::desc d(dnnl::algorithm::convolution_direct, p.x, p.w_any, p.y, p.strides,
                                                p.dilations, p.padding, p.padding_end);
  return dnnl::convolution_backward_data::primitive_desc(d, attr, e,
                                                         conv_forward(p, prop_kind::forward_training, {}, {}, e));
}
auto conv_weights(const Problem& p, const dnnl::primitive_attr& attr, const dnnl::engine& e) {
  const dnnl::convolution_backward_weights::desc d(dnnl::algorithm::convolution_direct, p.x, p.w_any, p.y, p.strides,
                                                   p.dilations, p.padding, p.padding_end);
  const auto forward = conv_forward(p, prop_kind::forward_training, {}, {}, e);
  return first_right(p, dnnl::convolution_backward_weights::primitive_desc(d, attr, e, forward));
}
auto linear_forward(const Problem& p, prop_kind kind, const memory::desc& bias, const dnnl::primitive_attr& attr,
                    const dnnl::engine& e) {
  const dnnl::inner_product_forward::desc d(kind, p.x, p.w_any, bias, p.y);
  return dnnl::inner_product_forward::primitive_desc(d, attr, e);
}
auto linear_data(const Problem& p, const dnnl::primitive_attr& attr, const dnnl::engine& e) {
  const dnnl::inner_product_backward_data::desc d(p.x, p.w_any, p.y);
  return dnnl::inner_product_backward_data::primitive_desc(d, attr, e,
                                                           linear_forward(p, prop_kind::forward_training, {}, {}, e));
}
auto linear_weights(const Problem& p, const dnnl::primitive_attr& attr, const dnnl::engine& e) {
  const dnnl::inner_product_backward_weights::desc d(p.x, p.w_any, p.y);
  return dnnl::inner_product_backward_weights::primitive_desc(
      d, attr, e, linear_forward(p, prop_kind::forward_training, {}, {}, e));
}
#endif

class OneDnnKernel final : public ConvKernel {
public:
  // stored: the element type of the operands in memory; p is described in the type that is computed in.
  OneDnnKernel(const Problem& p, DType stored, bool widen, const dnnl::engine& engine)
      : problem_(p), stored_(stored), widen_(widen), engine_(engine), stream_(engine) {
    const auto attr = attributes(p);
    const bool with_bias = p.epilogue != ConvEpilogue::none;
    const memory::desc bias = with_bias ? p.bias : memory::desc();
    // forward_inference: also in training, where it is the same computation.
    if (p.pass == ConvPass::fprop)
      p.convolution ? take(conv_forward(p, prop_kind::forward_inference, bias, attr, engine),
                           [](auto& pd) { return pd.weights_desc(); })
                    : take(linear_forward(p, prop_kind::forward_inference, bias, attr, engine),
                           [](auto& pd) { return pd.weights_desc(); });
    else if (p.pass == ConvPass::dgrad)
      p.convolution ? take(conv_data(p, attr, engine), [](auto& pd) { return pd.weights_desc(); })
                    : take(linear_data(p, attr, engine), [](auto& pd) { return pd.weights_desc(); });
    else
      p.convolution ? take(conv_weights(p, attr, engine), [](auto& pd) { return pd.diff_weights_desc(); })
                    : take(linear_weights(p, attr, engine), [](auto& pd) { return pd.diff_weights_desc(); });
    packs_ = widen_ || weights_ != p.w_plain;
    if (packs_) {
      const memory from(p.w_plain, engine_, nullptr), to(weights_, engine_, nullptr);
      reorder_ = p.pass == ConvPass::wgrad ? dnnl::reorder(to, from) : dnnl::reorder(from, to);
    }
  }

  std::string name() const override { return name_; }
  bool widened() const override { return widen_; }
  // Scratch of the library, then float copies of the two activations and of a bias where the type is widened.
  int64_t workspace_bytes() const override {
    if (!widen_) return rounded_up(scratch_bytes_);
    return rounded_up(scratch_bytes_) + widened_bytes(problem_.x) + widened_bytes(problem_.y) +
           widened_bytes(problem_.bias);
  }
  int64_t packed_bytes() const override {
    if (!packs_) return 0;
    return static_cast<int64_t>(weights_.get_size()) + (widen_ ? widened_bytes(problem_.w_plain) : 0);
  }
  std::string packed_format() const override { return packs_ ? description_of(weights_) : std::string{}; }

  void pack(Stream, const void* plain, void* packed) const override {
    const void* from = plain;
    if (widen_) {
      auto* wide = reinterpret_cast<float*>(static_cast<char*>(packed) + weights_.get_size());
      convolt::widen(plain, stored_, wide, elements(problem_.w_plain));
      from = wide;
    }
    reorder(const_cast<void*>(from), problem_.w_plain, packed, weights_);
  }
  void unpack(Stream, const void* packed, void* plain) const override {
    if (!widen_) return reorder(const_cast<void*>(packed), weights_, plain, problem_.w_plain);
    auto* wide = reinterpret_cast<float*>(static_cast<char*>(const_cast<void*>(packed)) + weights_.get_size());
    reorder(const_cast<void*>(packed), weights_, wide, problem_.w_plain);
    narrow(wide, plain, stored_, elements(problem_.w_plain));
  }

  void run(Stream, const ConvArgs& a) const override {
    void *x = a.x, *y = a.y, *bias = const_cast<void*>(problem_.convolution ? a.bias : a.linear_bias);
    if (widen_) {
      x = static_cast<char*>(a.workspace) + rounded_up(scratch_bytes_);
      y = static_cast<char*>(x) + widened_bytes(problem_.x);
      if (problem_.pass != ConvPass::dgrad) convolt::widen(a.x, stored_, static_cast<float*>(x), elements(problem_.x));
      if (problem_.pass != ConvPass::fprop) convolt::widen(a.y, stored_, static_cast<float*>(y), elements(problem_.y));
      if (a.linear_bias != nullptr) {
        bias = static_cast<char*>(y) + widened_bytes(problem_.y);
        convolt::widen(a.linear_bias, stored_, static_cast<float*>(bias), elements(problem_.bias));
      }
    }
    const memory mx(problem_.x, engine_, x), mw(weights_, engine_, a.w), my(problem_.y, engine_, y);
    std::unordered_map<int, memory> args{{DNNL_ARG_SCRATCHPAD, memory(scratch_, engine_, a.workspace)}};
    switch (problem_.pass) {
      case ConvPass::fprop:
        args.insert({{DNNL_ARG_SRC, mx}, {DNNL_ARG_WEIGHTS, mw}, {DNNL_ARG_DST, my}});
        if (problem_.epilogue != ConvEpilogue::none) args.insert({DNNL_ARG_BIAS, memory(problem_.bias, engine_, bias)});
        break;
      case ConvPass::dgrad:
        args.insert({{DNNL_ARG_DIFF_SRC, mx}, {DNNL_ARG_WEIGHTS, mw}, {DNNL_ARG_DIFF_DST, my}});
        break;
      case ConvPass::wgrad:
        args.insert({{DNNL_ARG_SRC, mx}, {DNNL_ARG_DIFF_WEIGHTS, mw}, {DNNL_ARG_DIFF_DST, my}});
        break;
    }
    primitive_.execute(stream_, args);
    stream_.wait();
    if (!widen_) return;
    if (problem_.pass == ConvPass::fprop) narrow(static_cast<float*>(y), a.y, stored_, elements(problem_.y));
    if (problem_.pass == ConvPass::dgrad) narrow(static_cast<float*>(x), a.x, stored_, elements(problem_.x));
  }

private:
  static int64_t elements(const memory::desc& d) {
    int64_t n = 1;
    for (const auto e : dims_of(d)) n *= e;
    return n;
  }
  static int64_t rounded_up(int64_t bytes) { return (bytes + 255) / 256 * 256; }
  static int64_t widened_bytes(const memory::desc& d) { return rounded_up(elements(d) * 4); }

  template <class PrimitiveDesc, class Weights>
  void take(const PrimitiveDesc& pd, Weights weights) {
    weights_ = weights(pd);
    scratch_ = pd.scratchpad_desc();
    scratch_bytes_ = static_cast<int64_t>(scratch_.get_size());
    name_ = pd.impl_info_str();
    primitive_ = dnnl::primitive(pd);
  }
  void reorder(void* from, const memory::desc& from_desc, void* to, const memory::desc& to_desc) const {
    memory a(from_desc, engine_, from), b(to_desc, engine_, to);
    reorder_.execute(stream_, a, b);
    stream_.wait();
  }

  Problem problem_;
  DType stored_;
  bool widen_;
  dnnl::engine engine_;
  mutable dnnl::stream
      stream_;  // execute() takes it by reference; the kernels of a context run on its one compute thread
  memory::desc weights_, scratch_;
  int64_t scratch_bytes_ = 0;
  bool packs_ = false;
  std::string name_;
  dnnl::primitive primitive_;
  mutable dnnl::reorder reorder_;
};

class OneDnnProvider final : public ConvProvider {
public:
  explicit OneDnnProvider(int threads) : engine_(dnnl::engine::kind::cpu, 0), threads_(threads) {}

  std::vector<std::unique_ptr<ConvKernel>> candidates(const ConvDesc& d) override {
    if (d.prologue != ConvPrologue::none || !supported(d.epilogue, d.pass)) return {};
    auto found = make(d);
    if (auto winograd = make_winograd(d, threads_)) {
      const bool first = found.empty() || found[0]->widened() || winograd_is_quicker(d, found[0]->name());
      found.insert(first ? found.begin() : found.end(), std::move(winograd));
    }
    for (auto* candidates : {depthwise_candidates, grouped_candidates})
      for (auto& own : candidates(d)) {
        const bool first = found.empty() || own_is_quicker(d, *found[0]);
        found.insert(first ? found.begin() : found.end(), std::move(own));
      }
    return found;
  }
  std::vector<std::unique_ptr<ConvKernel>> candidates(const LinearDesc& d) override {
    if (!supported(d.epilogue, d.pass)) return {};
    auto found = make(d);
    // Where the library itself takes plain weights, as for wgrad on AVX2, there is nothing to choose.
    if (!found.empty() && !found[0]->widened() && found[0]->packed_bytes() > 0) {
      Problem p = problem_of(d, d.dtype);
      p.w_any = p.w_plain;
      if (auto plain = attempt(p, d.dtype, false); plain && !is_reference(*plain))
        found.insert(plain_is_quicker(d) ? found.begin() : found.end(), std::move(plain));
    }
    return found;
  }
  std::string describe() const override {
    const auto* v = dnnl::version();
    return "oneDNN " + std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch) +
           ", Winograd " + winograd_code().name + ", " + std::to_string(threads_) +
           (threads_ == 1 ? " thread" : " threads");
  }
  // A server's core or two; what lacks a type is widened.
  DeviceRates rates() const override {
    return {.copy = 20e9, .f16 = 150e9, .bf16 = 150e9, .tf32 = 150e9, .f32 = 150e9};
  }

private:
  static bool supported(ConvEpilogue e, ConvPass pass) {
    if (e == ConvEpilogue::none) return true;
    return pass == ConvPass::fprop &&
           (e == ConvEpilogue::bias || e == ConvEpilogue::bias_relu || e == ConvEpilogue::bias_relu6);
  }

  // In the type asked for where the library has more than reference code for it, else widened to f32.
  template <class Desc>
  std::vector<std::unique_ptr<ConvKernel>> make(const Desc& d) {
    std::vector<std::unique_ptr<ConvKernel>> found;
    const auto add = [&](const Problem& p, DType computed) {
      if (auto kernel = attempt(p, d.dtype, computed != d.dtype);
          kernel && (computed == DType::f32 || !is_reference(*kernel)))
        found.push_back(std::move(kernel));
    };
    if (d.dtype != DType::f16) add(problem_of(d, d.dtype), d.dtype);
    if (found.empty() && d.dtype != DType::f32) add(problem_of(d, DType::f32), DType::f32);
    return found;
  }
  // Than packing the weights first, which with few rows takes longer than the products. But oneDNN 2.6 makes f32
  // products with transposed weights, those of fprop, on one thread (convolt bench conv).
  bool plain_is_quicker(const LinearDesc& d) const {
    constexpr int64_t kManyRows = 2048;
    return d.rows < kManyRows && (d.pass != ConvPass::fprop || d.dtype != DType::f32 || threads_ == 1);
  }
  static bool is_reference(const ConvKernel& kernel) { return kernel.name().find("ref") != std::string::npos; }
  std::unique_ptr<ConvKernel> attempt(const Problem& p, DType stored, bool widen) const {
    const ThreadCount count(threads_);
    try {
      return std::make_unique<OneDnnKernel>(p, stored, widen, engine_);
    } catch (const dnnl::error&) {
      return nullptr;  // the library has no implementation
    }
  }

  dnnl::engine engine_;
  int threads_;
};

}  // namespace

std::unique_ptr<ConvProvider> make_onednn_provider(int threads) { return std::make_unique<OneDnnProvider>(threads); }

}  // namespace convolt
