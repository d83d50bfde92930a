// Matrix products as ops, plain or with a linear layer's epilogue. Where the provider has no kernel for one and
// PlanOptions::compose_fusions asks for it, the op runs plain kernels one after the other.
#include "activation.h"
#include "batch_norm.h"
#include "channels.h"
#include "graph/cost.h"
#include "graph/op.h"
#include "ops/gradient_of_sums.h"

namespace convolt {
namespace {

const LinearDesc& lin(const Op& op) { return std::get<LinearAttrs>(op.attrs).desc; }

Shape with_last(Shape s, int64_t extent) {
  s.set(-1, extent);
  return s;
}

// Operands, kNoValue where an epilogue has no use for one: fprop (x, w, bias) -> (y, mask); dgrad (dy, w, mask) -> (dx,
// gradient of the bias before); wgrad (x, dy) -> (dw, gradient of the bias). w may be in the library's packed form;
// biases are of the dtype.
ConvArgs args_of(const Op& op, const Binding& b) {
  ConvArgs args;
  args.workspace = b.scratch(op);
  if (lin(op).pass == ConvPass::fprop) {
    args.x = b.in(op, 0).data;
    args.w = b.in(op, 1).data;
    args.linear_bias = b.in(op, 2).data;
    args.y = b.out(op, 0).data;
    args.mask = b.out(op, 1).data;
  } else if (lin(op).pass == ConvPass::dgrad) {
    args.y = b.in(op, 0).data;
    args.w = b.in(op, 1).data;
    args.mask = b.in(op, 2).data;
    args.x = b.out(op, 0).data;
    args.bias_gradient = b.out(op, 1).data;
  } else {
    args.x = b.in(op, 0).data;
    args.y = b.in(op, 1).data;
    args.w = b.out(op, 0).data;
    args.bias_gradient = b.out(op, 1).data;
  }
  return args;
}

bool sums(const LinearDesc& d) {
  return d.epilogue == ConvEpilogue::bias_gradient || d.epilogue == ConvEpilogue::drelu_bias_gradient;
}
// What is summed up, or gives the mask.
Shape swept(const LinearDesc& d) { return {d.rows, d.pass == ConvPass::dgrad ? d.in : d.out}; }

// The scratch of a composed op: offsets behind the kernel's workspace, and the end.
struct ComposedLinear {
  int64_t sums = 0, partials = 0, bytes = 0;
};
ComposedLinear linear_scratch(const Op& op) {
  const LinearDesc& d = lin(op);
  const auto aligned = [](int64_t n) { return (n + 255) / 256 * 256; };
  ComposedLinear c;
  c.sums = c.partials = c.bytes = aligned(op.kernel ? op.kernel->workspace_bytes() : 0);
  if (!sums(d)) return c;
  if (d.dtype != DType::f32) c.partials += aligned(4 * swept(d)[1]);
  c.bytes = c.partials + scale_channels_scratch(d.rows, swept(d)[1]);
  return c;
}

// The epilogue as plain kernels behind the product.
Launch compose_linear(const Op& op, const Binding& b) {
  const LinearDesc& d = lin(op);
  const ComposedLinear place = linear_scratch(op);
  auto* scratch = static_cast<char*>(b.scratch(op));
  const ConvArgs args = args_of(op, b);
  const Tensor result{d.dtype, swept(d), d.pass == ConvPass::dgrad ? args.x : args.y};
  const Tensor rounded{d.dtype, {swept(d)[1]}, args.bias_gradient};
  const Tensor total{DType::f32, rounded.shape, d.dtype == DType::f32 ? args.bias_gradient : scratch + place.sums};
  auto* mask = static_cast<uint8_t*>(args.mask);
  auto* partials = reinterpret_cast<float*>(scratch + place.partials);
  return [=, kernel = op.kernel, epilogue = d.epilogue](Stream s) {
    kernel->run(s, args);
    if (epilogue == ConvEpilogue::bias_relu_mask) return relu_mask(s, result, mask);
    if (epilogue == ConvEpilogue::drelu_bias_gradient) relu_mask_backward(s, mask, result);
    channel_sum(s, result, partials, total.as<float>());
    if (rounded.dtype != DType::f32) cast(s, total, rounded);
  };
}
int launches(const Op& op) {
  if (!op.composed) return 1;
  const bool one = lin(op).epilogue != ConvEpilogue::drelu_bias_gradient;
  return (one ? 2 : 3) + (sums(lin(op)) && lin(op).dtype != DType::f32 ? 1 : 0);
}

Launch bind_product(const Op& op, const Binding& b) {
  if (op.composed) return compose_linear(op, b);
  return [kernel = op.kernel, args = args_of(op, b)](Stream s) { kernel->run(s, args); };
}

// Each operand once; what plain kernels move besides.
int64_t product_bytes(const Op& op, const Program& p) {
  const int64_t n = bytes_of(op.in, p) + bytes_of(op.out, p);
  if (!op.composed) return n;
  const LinearDesc& d = lin(op);
  const Shape s = swept(d);
  const int64_t sweeps = d.epilogue == ConvEpilogue::drelu_bias_gradient ? 3 : 1,
                partials = sums(d) ? scale_channels_scratch(d.rows, s[1]) : 0,
                totals = sums(d) && d.dtype != DType::f32 ? 4 * s[1] : 0;
  return n + sweeps * s.elements() * size_of(d.dtype) + 2 * (partials + totals);
}
int64_t flops(const Op& op, const Program&) { return 2 * lin(op).rows * lin(op).in * lin(op).out; }
int64_t workspace(const Op& op, const Program&) {
  if (op.composed) return linear_scratch(op).bytes;
  return op.kernel ? op.kernel->workspace_bytes() : 0;
}

void linear_gradient(const Op& op, GradientBuilder& b) {
  const ValueId dy = gradient_of_sums(op, lin(op).epilogue, b);
  LinearAttrs attrs{lin(op)};
  attrs.desc.epilogue = ConvEpilogue::none;
  attrs.desc.pass = ConvPass::wgrad;
  if (b.wanted(op.in[1]))
    b.flow_to_param(
        op.in[1],
        b.emit({.def = &ops::linear_wgrad, .in = {op.in[0], dy}, .attrs = attrs, .layer = op.layer}, "dw")[0]);
  if (!b.wanted(op.in[0])) return;
  attrs.desc.pass = ConvPass::dgrad;
  b.flow(op.in[0],
         b.emit({.def = &ops::linear_dgrad, .in = {dy, op.in[1]}, .attrs = attrs, .layer = op.layer}, "dx")[0]);
}

OpDef product(std::string_view name, std::vector<TensorType> (*infer)(const Op&, const Program&),
              void (*gradient)(const Op&, GradientBuilder&) = nullptr) {
  return {.name = name,
          .infer = infer,
          .bind = bind_product,
          .gradient = gradient,
          .flops = flops,
          .bytes = product_bytes,
          .scratch = workspace,
          .launches = launches};
}

}  // namespace

namespace ops {

const OpDef linear_fprop = product(
    "linear_fprop",
    [](const Op& op, const Program& p) -> std::vector<TensorType> {
      return {{lin(op).dtype, with_last(p[op.in[0]].shape, lin(op).out)}};
    },
    linear_gradient);
const OpDef linear_dgrad = product("linear_dgrad", [](const Op& op, const Program& p) -> std::vector<TensorType> {
  return {{lin(op).dtype, with_last(p[op.in[0]].shape, lin(op).in)}};
});
const OpDef linear_wgrad = product("linear_wgrad", [](const Op& op, const Program&) -> std::vector<TensorType> {
  return {{lin(op).dtype, {lin(op).out, lin(op).in}}};
});

}  // namespace ops
}  // namespace convolt
