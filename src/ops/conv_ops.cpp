// Convolutions as ops, plain or fused with the batch norms around them, and what they share with matrix products:
// biases and packed weights. Where the provider has no kernel for a fusion and PlanOptions::compose_fusions asks for
// it, the op runs plain kernels one after the other.
#include "activation.h"
#include "batch_norm.h"
#include "block_end.h"
#include "channels.h"
#include "graph/cost.h"
#include "graph/op.h"
#include "ops/gradient_of_sums.h"
#include "ops/shared.h"

namespace convolt {

ValueId gradient_of_sums(const Op& op, ConvEpilogue epilogue, GradientBuilder& b) {
  ValueId dy = b.gradient_of(op.out[0]);
  if (epilogue == ConvEpilogue::bias_relu || epilogue == ConvEpilogue::bias_relu6) {
    const Act act = epilogue == ConvEpilogue::bias_relu ? Activation::relu : Activation::relu6;
    dy = b.emit({.def = &ops::activation_backward, .in = {dy, op.out[0]}, .attrs = ActAttrs{act}, .layer = op.layer},
                "dsums")[0];
  }
  if (epilogue != ConvEpilogue::none && b.wanted(op.in[2]))
    b.flow_to_param(op.in[2], b.emit({.def = &ops::channel_sum, .in = {dy}, .layer = op.layer}, "dbias")[0]);
  return dy;
}

namespace {

const ConvDesc& conv(const Op& op) { return std::get<ConvAttrs>(op.attrs).desc; }

// Operands, kNoValue where a fusion has no use for one:
// fprop (x, w, bias, low) -> (y, sums); dgrad (dy, w, x, coef, gamma, beta, dy2, mask, x2, coef2) -> (dx, dgamma,
// dbeta, dgamma2, dbeta2); wgrad (x, dy, low) -> dw. w may be in the library's packed form. low: [2, C], scale and bias
// of the prologue. sums: f32 [2, C]. Those of dgrad from x on, and what it writes besides dx, belong to
// drelu_bn_reduce, and from dy2 on to join, which has no use for gamma and beta.
ConvArgs args_of(const Op& op, const Binding& b, ConvPass pass) {
  ConvArgs args;
  args.workspace = b.scratch(op);
  if (pass == ConvPass::fprop) {
    args.x = b.in(op, 0).data;
    args.w = b.in(op, 1).data;
    args.bias = b.in(op, 2).as<const float>();
    args.prologue = b.in(op, 3).data;
    args.y = b.out(op, 0).data;
    args.sums = b.out(op, 1).as<float>();
  } else if (pass == ConvPass::dgrad) {
    args.y = b.in(op, 0).data;
    args.w = b.in(op, 1).data;
    args.x = b.out(op, 0).data;
    args.normalised_x = b.in(op, 2).data;
    args.coef = b.in(op, 3).as<const float>();
    args.gamma = b.in(op, 4).as<const float>();
    args.beta = b.in(op, 5).as<const float>();
    args.dgamma = b.out(op, 1).as<float>();
    args.dbeta = b.out(op, 2).as<float>();
    args.joined = b.in(op, 6).data;
    args.joined_thin = args.joined != nullptr && b.in(op, 6).elements() != b.out(op, 0).elements();
    args.mask = b.in(op, 7).data;
    args.second_x = b.in(op, 8).data;
    args.second_coef = b.in(op, 9).as<const float>();
    args.second_dgamma = b.out(op, 3).as<float>();
    args.second_dbeta = b.out(op, 4).as<float>();
  } else {
    args.x = b.in(op, 0).data;
    args.y = b.in(op, 1).data;
    args.prologue = b.in(op, 2).data;
    args.w = b.out(op, 0).data;
  }
  return args;
}

bool joins_second(const Op& op) { return op.in.size() > 8 && op.in[8] != kNoValue; }

// The scratch of a composed op.
struct Composed {
  // Offsets behind the kernel's workspace, and the end. normalised: x behind a prologue, or before a join.
  int64_t normalised = 0, coef = 0, partials = 0, bytes = 0;
};
Composed composed_scratch(const Op& op) {
  const ConvDesc& d = conv(op);
  const auto aligned = [](int64_t n) { return (n + 255) / 256 * 256; };
  Composed c;
  c.normalised = aligned(op.kernel ? op.kernel->workspace_bytes() : 0);
  const bool prologue = d.prologue != ConvPrologue::none, beside = prologue || d.epilogue == ConvEpilogue::join;
  c.coef = c.normalised + (beside ? aligned(d.geometry.x_shape().elements() * size_of(d.dtype)) : 0);
  c.partials = c.coef + (prologue ? aligned(d.geometry.in_c * 16) : 0);
  const Shape reduced = d.pass == ConvPass::dgrad ? d.geometry.x_shape() : d.geometry.y_shape();
  const int64_t rows = rows_of(reduced);
  const auto channels = static_cast<int>(reduced[-1]);
  c.bytes = c.partials;
  if (d.epilogue == ConvEpilogue::join)
    c.bytes += gradient_join_scratch(rows, channels, joins_second(op));
  else if (d.epilogue != ConvEpilogue::none)
    c.bytes += bn_backward_scratch(rows, channels);
  return c;
}

// The fusion as plain kernels, one after the other.
Launch compose(const Op& op, const Binding& b) {
  const ConvDesc& d = conv(op);
  const ConvGeometry& g = d.geometry;
  const Composed place = composed_scratch(op);
  auto* scratch = static_cast<char*>(b.scratch(op));
  const ConvArgs args = args_of(op, b, d.pass);
  ConvArgs plain = args;
  const Tensor x{d.dtype, g.x_shape(), args.x}, y{d.dtype, g.y_shape(), args.y};
  const Tensor normalised{d.dtype, x.shape, scratch + place.normalised};
  const Tensor low{d.dtype == DType::f16 ? DType::f16 : DType::f32, {2, g.in_c}, const_cast<void*>(args.prologue)};
  auto* coef = reinterpret_cast<float*>(scratch + place.coef);
  auto* partials = reinterpret_cast<float*>(scratch + place.partials);
  const bool prologue = d.prologue != ConvPrologue::none;
  if (prologue) plain.x = normalised.data;
  // A result may lie where the other gradient does.
  if (d.epilogue == ConvEpilogue::join) plain.x = scratch + place.normalised;
  const auto as_x = [&](const void* data) { return Tensor{d.dtype, x.shape, const_cast<void*>(data)}; };
  const bool masked = d.epilogue == ConvEpilogue::join;
  GradientJoinArgs join{.dy = as_x(plain.x),
                        .dy2 = {d.dtype, args.joined_thin ? thinned(x.shape) : x.shape, const_cast<void*>(args.joined)},
                        .x = as_x(args.normalised_x),
                        .coef = args.coef,
                        .gate = masked ? Gate::mask : Gate::recomputed,
                        .gate_data = args.mask,
                        .x2 = as_x(args.second_x),
                        .coef2 = args.second_coef,
                        .dz = x,
                        .scratch = partials,
                        .dgamma = args.dgamma,
                        .dbeta = args.dbeta,
                        .dgamma2 = args.second_dgamma,
                        .dbeta2 = args.second_dbeta};
  return [=, kernel = op.kernel, epilogue = d.epilogue](Stream s) {
    if (prologue) {
      cast(s, low, {DType::f32, low.shape, coef + 2 * low.shape[1]});
      bn_apply(s, x, coef, {}, normalised, Activation::relu);
    }
    kernel->run(s, plain);
    if (epilogue == ConvEpilogue::stats) channel_sums(s, y, partials, args.sums);
    if (epilogue == ConvEpilogue::drelu_bn_reduce || epilogue == ConvEpilogue::join) gradient_join(s, join);
  };
}
int composed_launches(const Op& op) {
  if (!op.composed) return 1;
  return 1 + (conv(op).prologue != ConvPrologue::none ? 2 : 0) + (conv(op).epilogue != ConvEpilogue::none ? 1 : 0);
}

template <ConvPass P>
Launch bind_kernel(const Op& op, const Binding& b) {
  if (op.composed) return compose(op, b);
  return [kernel = op.kernel, args = args_of(op, b, P)](Stream s) { kernel->run(s, args); };
}

// What the plain kernels of a composed op move besides its operands.
int64_t composed_bytes(const Op& op) {
  const ConvDesc& d = conv(op);
  const int64_t x = d.geometry.x_shape().elements() * size_of(d.dtype),
                y = d.geometry.y_shape().elements() * size_of(d.dtype);
  const Composed c = composed_scratch(op);
  int64_t n = 2 * (c.bytes - c.partials);
  if (d.prologue != ConvPrologue::none) n += 2 * x;
  if (d.epilogue == ConvEpilogue::stats) n += y;
  if (d.epilogue == ConvEpilogue::drelu_bn_reduce || d.epilogue == ConvEpilogue::join) n += 2 * x;
  return n;
}

// Each operand once, but of x only what is read; dgrad writes all of it.
int64_t conv_bytes(const Op& op, const Program& p) {
  const int64_t n = bytes_of(op.in, p) + bytes_of(op.out, p) + (op.composed ? composed_bytes(op) : 0);
  if (conv(op).pass == ConvPass::dgrad) return n;
  const ConvGeometry& g = conv(op).geometry;
  const int64_t rows = touched(g.in_h, g.out_h(), g.kernel_h, g.stride_h, g.dilation_h, g.pad.top),
                columns = touched(g.in_w, g.out_w(), g.kernel_w, g.stride_w, g.dilation_w, g.pad.left);
  return n - (g.in_h * g.in_w - rows * columns) * g.n * g.in_c * size_of(conv(op).dtype);
}

int64_t kernel_workspace(const Op& op, const Program&) {
  if (op.composed) return composed_scratch(op).bytes;
  return op.kernel ? op.kernel->workspace_bytes() : 0;
}

int64_t conv_flops(const Op& op, const Program&) { return conv(op).geometry.flops(); }

void conv_gradient(const Op& op, GradientBuilder& b) {
  const ValueId dy = gradient_of_sums(op, conv(op).epilogue, b);
  ConvAttrs attrs{conv(op)};
  attrs.desc.epilogue = ConvEpilogue::none;
  attrs.desc.pass = ConvPass::wgrad;
  if (b.wanted(op.in[1]))
    b.flow_to_param(
        op.in[1], b.emit({.def = &ops::conv_wgrad, .in = {op.in[0], dy}, .attrs = attrs, .layer = op.layer}, "dw")[0]);
  if (!b.wanted(op.in[0])) return;
  attrs.desc.pass = ConvPass::dgrad;
  b.flow(op.in[0], b.emit({.def = &ops::conv_dgrad, .in = {dy, op.in[1]}, .attrs = attrs, .layer = op.layer}, "dx")[0]);
}

// Of conv_dgrad as a forward op: it is linear in both operands, as the convolution it belongs to.
void conv_dgrad_gradient(const Op& op, GradientBuilder& b) {
  const ValueId dy = b.gradient_of(op.out[0]);
  ConvAttrs attrs{conv(op)};
  attrs.desc.pass = ConvPass::wgrad;
  b.flow_to_param(op.in[1],
                  b.emit({.def = &ops::conv_wgrad, .in = {dy, op.in[0]}, .attrs = attrs, .layer = op.layer}, "dw")[0]);
  if (!b.wanted(op.in[0])) return;
  attrs.desc.pass = ConvPass::fprop;
  b.flow(op.in[0], b.emit({.def = &ops::conv_fprop, .in = {dy, op.in[1]}, .attrs = attrs, .layer = op.layer}, "dx")[0]);
}

void add_bias_gradient(const Op& op, GradientBuilder& b) {
  const ValueId dy = b.gradient_of(op.out[0]);
  if (b.wanted(op.in[1]))
    b.flow_to_param(op.in[1], b.emit({.def = &ops::channel_sum, .in = {dy}, .layer = op.layer}, "dbias")[0]);
  if (b.wanted(op.in[0])) b.flow(op.in[0], dy);
}

}  // namespace

namespace ops {

const OpDef conv_fprop{.name = "conv_fprop",
                       .infer = [](const Op& op, const Program&) -> std::vector<TensorType> {
                         return {{conv(op).dtype, conv(op).geometry.y_shape()}};
                       },
                       .bind = bind_kernel<ConvPass::fprop>,
                       .gradient = conv_gradient,
                       .flops = conv_flops,
                       .bytes = conv_bytes,
                       .scratch = kernel_workspace,
                       .launches = composed_launches};
const OpDef conv_dgrad{.name = "conv_dgrad",
                       .infer = [](const Op& op, const Program&) -> std::vector<TensorType> {
                         return {{conv(op).dtype, conv(op).geometry.x_shape()}};
                       },
                       .bind = bind_kernel<ConvPass::dgrad>,
                       .gradient = conv_dgrad_gradient,
                       .flops = conv_flops,
                       .bytes = conv_bytes,
                       .scratch = kernel_workspace,
                       .launches = composed_launches,
                       .in_place = {{6, 0}}};
const OpDef conv_wgrad{.name = "conv_wgrad",
                       .infer = [](const Op& op, const Program&) -> std::vector<TensorType> {
                         return {{conv(op).dtype, conv(op).geometry.w_shape()}};
                       },
                       .bind = bind_kernel<ConvPass::wgrad>,
                       .flops = conv_flops,
                       .bytes = conv_bytes,
                       .scratch = kernel_workspace,
                       .launches = composed_launches};

// (w) -> the library's own form, bytes.
const OpDef pack_weights{.name = "pack_weights",
                         .infer = [](const Op& op, const Program&) -> std::vector<TensorType> {
                           return {{DType::u8, {op.kernel->packed_bytes()}}};
                         },
                         .bind = [](const Op& op, const Binding& b) -> Launch {
                           return [kernel = op.kernel, plain = b.in(op, 0).data, packed = b.out(op, 0).data](Stream s) {
                             kernel->pack(s, plain, packed);
                           };
                         }};
// (packed dw, of the weight gradient's kernel) -> dw; the type of the result is set by whoever emits it.
const OpDef unpack_gradient{.name = "unpack_gradient",
                            .infer = [](const Op&, const Program&) -> std::vector<TensorType> { return {}; },
                            .bind = [](const Op& op, const Binding& b) -> Launch {
                              return [kernel = op.kernel, packed = b.in(op, 0).data,
                                      plain = b.out(op, 0).data](Stream s) { kernel->unpack(s, packed, plain); };
                            }};

const OpDef add_bias{.name = "add_bias",
                     .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                       return {{p[op.in[0]].dtype, p[op.in[0]].shape}};
                     },
                     .bind = [](const Op& op, const Binding& b) -> Launch {
                       return [x = b.in(op, 0), bias = b.in(op, 1).as<const float>(), y = b.out(op, 0)](Stream s) {
                         convolt::add_bias(s, x, bias, y);
                       };
                     },
                     .gradient = add_bias_gradient,
                     .in_place = {{0, 0}}};
const OpDef channel_sum{.name = "channel_sum",
                        .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                          return {{DType::f32, {p[op.in[0]].shape[-1]}}};
                        },
                        .bind = [](const Op& op, const Binding& b) -> Launch {
                          return
                              [x = b.in(op, 0), scratch = static_cast<float*>(b.scratch(op)),
                               out = b.out(op, 0).as<float>()](Stream s) { convolt::channel_sum(s, x, scratch, out); };
                        },
                        .scratch =
                            [](const Op& op, const Program& p) {
                              const Shape& x = p[op.in[0]].shape;
                              return scale_channels_scratch(rows_of(x), x[-1]);
                            }};

}  // namespace ops
}  // namespace convolt
