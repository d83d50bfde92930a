// Batch normalisation: statistics -> finalize -> apply, so that fusing is a rewrite of the op list and nothing else.
#include "batch_norm.h"

#include <fmt/format.h>

#include "block_end.h"
#include "convolt/layers.h"
#include "graph/cost.h"
#include "graph/layer.h"
#include "ops/shared.h"

namespace convolt {
namespace {

Shape bn_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  const auto& o = std::any_cast<const BatchNormOptions&>(layer.attributes);
  check_eps(layer, o.eps);
  if (!(o.momentum >= 0 && o.momentum <= 1))
    layer_error(layer, "momentum must be 0 to 1, found " + std::to_string(o.momentum));
  return inputs[0];
}

std::vector<ParamSpec> bn_params(const Layer& layer, const std::vector<Shape>& inputs, const Graph&) {
  const int64_t c = inputs[0][-1];
  const auto& o = std::any_cast<const BatchNormOptions&>(layer.attributes);
  return {{.name = "weight", .shape = {c}, .decays = false, .init = o.init},
          {.name = "bias", .shape = {c}, .decays = false, .init = Init::constant(0)},
          {.name = "running_mean", .shape = {c}, .trainable = false, .decays = false, .init = Init::constant(0)},
          {.name = "running_var", .shape = {c}, .trainable = false, .decays = false, .init = Init::constant(1)}};
}

ValueId lower_bn(LoweringContext& c) {
  const auto& o = std::any_cast<const BatchNormOptions&>(c.layer.attributes);
  const ValueId x = c.inputs[0], gamma = c.params[0], beta = c.params[1], mean = c.params[2], var = c.params[3];
  const Shape& shape = c.program[x].shape;
  const BnAttrs attrs{
      .eps = o.eps, .momentum = o.momentum, .gamma = gamma, .beta = beta, .rows = rows_of(shape), .frozen = o.frozen};
  ValueId coef = kNoValue;
  if (c.training && o.frozen) {
    coef = c.emit(ops::bn_coefficients, {gamma, beta, mean, var}, attrs, ".coef")[0];  // each step: they learn
  } else if (c.training) {
    if (attrs.rows < 2)
      layer_error(c.layer, "training needs more than one value per channel, found 1; use a larger batch or picture");
    const ValueId stats = c.emit(ops::channel_stats, {x}, attrs, ".stats")[0];
    coef = c.emit(ops::bn_finalize, {stats, gamma, beta, mean, var}, attrs, ".coef")[0];
  } else {
    coef = c.emit_prepare(ops::bn_coefficients, {gamma, beta, mean, var}, attrs, ".coef")[0];
  }
  return c.emit(ops::bn_apply, {x, coef, kNoValue}, attrs)[0];
}

Attributes bn_attributes(std::any& any) {
  auto& o = attributes_as<BatchNormOptions>(any);
  return {{"eps", &o.eps}, {"momentum", &o.momentum}, {"init", &o.init}, {"frozen", &o.frozen}};
}
const LayerDef kBatchNorm{
    .kind = "batch_norm", .shape = bn_shape, .params = bn_params, .lower = lower_bn, .attributes = bn_attributes};

// bn_apply reads (x, coef, residual); its gradient computes the activation's input from x again, or reads y after a
// residual.
void bn_apply_gradient(const Op& op, GradientBuilder& b) {
  const ValueId dy = b.gradient_of(op.out[0]), x = op.in[0], coef = op.in[1], residual = op.in[2];
  const bool masked = bn(op).act.kind != Activation::none;
  const ValueId y = masked && residual != kNoValue ? op.out[0] : kNoValue;
  const auto sums =
      b.emit({.def = &ops::bn_backward_reduce, .in = {dy, x, coef, y}, .attrs = op.attrs, .layer = op.layer}, "dbn");
  b.flow_to_param(bn(op).gamma, sums[0]);
  b.flow_to_param(bn(op).beta, sums[1]);
  // Without an activation the residual's gradient is dy itself.
  const bool residual_wanted = residual != kNoValue && b.wanted(residual);
  if (!b.wanted(x) && !(residual_wanted && masked)) {
    if (residual_wanted) b.flow(residual, dy);
    return;
  }
  Op apply{
      .def = &ops::bn_backward_apply, .in = {dy, x, coef, y, sums[0], sums[1]}, .attrs = op.attrs, .layer = op.layer};
  std::get<BnAttrs>(apply.attrs).residual_gradient = residual_wanted && masked;
  const auto out = b.emit(apply, "dx");
  if (b.wanted(x)) b.flow(x, out[0]);
  if (residual_wanted) b.flow(residual, masked ? out[1] : dy);
}

// Of the k-th batch norm of an op.
BnFinalizeArgs finalize_args(const Op& op, const Binding& b, size_t k) {
  const Tensor stats = b.in(op, 5 * k);
  BnFinalizeArgs args;
  args.stats = stats.as<float>();
  args.raw_sums = bn(op).raw_sums;
  args.chunks = (stats.shape[0] - 1) / 2;
  args.rows = bn(op).rows;
  args.channels = static_cast<int>(stats.shape[-1]);
  args.gamma = b.in(op, 5 * k + 1).as<float>();
  args.beta = b.in(op, 5 * k + 2).as<float>();
  args.running_mean = b.in(op, 5 * k + 3).as<float>();
  args.running_var = b.in(op, 5 * k + 4).as<float>();
  args.eps = bn(op).eps;
  args.momentum = bn(op).momentum;
  args.coef = b.out(op, k).as<float>();
  if (bn(op).low) args.low = b.out(op, 1);
  return args;
}

Launch bind_apply(const Op& op, const Binding& b) {
  const BlockEndArgs end{.x = b.in(op, 0),
                         .coef = b.in(op, 1).as<const float>(),
                         .residual = b.in(op, 2),
                         .residual_coef = b.in(op, 3).as<const float>(),
                         .y = b.out(op, 0),
                         .mean_over = bn(op).mean,
                         .mask = b.out(op, 1).as<uint8_t>(),
                         .act = bn(op).act};
  if (end.residual_coef != nullptr || end.mask != nullptr || end.mean_over > 0)
    return [end](Stream s) { block_end(s, end); };
  return [end](Stream s) { convolt::bn_apply(s, end.x, end.coef, end.residual, end.y, end.act); };
}

}  // namespace

Value batch_norm(Value x, BatchNormOptions options) {
  std::string name = options.name;
  return graph_of(x).append(kBatchNorm, std::move(name), {x}, std::move(options));
}

std::vector<const LayerDef*> batch_norm_kinds() { return {&kBatchNorm}; }

namespace ops {

const OpDef channel_stats{.name = "channel_stats",
                          .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                            const Shape& x = p[op.in[0]].shape;
                            return {{DType::f32, {channel_stats_extent(rows_of(x)), x[-1]}}};
                          },
                          .bind = [](const Op& op, const Binding& b) -> Launch {
                            return [x = b.in(op, 0), out = b.out(op, 0).as<float>()](Stream s) {
                              convolt::channel_stats(s, x, out);
                            };
                          }};

const OpDef bn_finalize{.name = "bn_finalize",
                        .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                          const int64_t c = p[op.in[0]].shape[-1];
                          if (!bn(op).low) return {{DType::f32, {4, c}}};
                          return {{DType::f32, {4, c}}, {*bn(op).low, {2, c}}};
                        },
                        .bind = [](const Op& op, const Binding& b) -> Launch {
                          const BnFinalizeArgs args = finalize_args(op, b, 0);
                          return [args](Stream s) { convolt::bn_finalize(s, args); };
                        },
                        // The running statistics are read and written.
                        .bytes =
                            [](const Op& op, const Program& p) {
                              return bytes_of(op.in, p) + bytes_of({op.in[3], op.in[4]}, p) + bytes_of(op.out, p);
                            },
                        .effects = true};

// (sums, gamma, beta, running mean, running var) twice, plain sums -> (coef, coef)
const OpDef bn_finalize_pair{
    .name = "bn_finalize_pair",
    .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
      return {{DType::f32, {4, p[op.in[0]].shape[-1]}}, {DType::f32, {4, p[op.in[5]].shape[-1]}}};
    },
    .bind = [](const Op& op, const Binding& b) -> Launch {
      const BnFinalizeArgs first = finalize_args(op, b, 0), second = finalize_args(op, b, 1);
      return [first, second](Stream s) { convolt::bn_finalize_pair(s, first, second); };
    },
    .effects = true};

// (x, gamma, beta, running mean, running var) -> as bn_finalize: channel_stats and that
const OpDef bn_statistics{.name = "bn_statistics",
                          .infer = bn_finalize.infer,
                          .bind = [](const Op& op, const Binding& b) -> Launch {
                            BnFinalizeArgs args = finalize_args(op, b, 0);
                            return [args, x = b.in(op, 0), stats = static_cast<float*>(b.scratch(op))](Stream s) {
                              convolt::bn_statistics(s, x, stats, args);
                            };
                          },
                          .scratch =
                              [](const Op& op, const Program& p) {
                                const Shape& x = p[op.in[0]].shape;
                                return channel_stats_extent(rows_of(x)) * x[-1] * int64_t{4};
                              },
                          .effects = true};

const OpDef bn_coefficients{.name = "bn_coefficients",
                            .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                              return {{DType::f32, {4, p[op.in[0]].shape[0]}}};
                            },
                            .bind = [](const Op& op, const Binding& b) -> Launch {
                              return [c = static_cast<int>(b.in(op, 0).shape[0]), gamma = b.in(op, 0).as<float>(),
                                      beta = b.in(op, 1).as<float>(), mean = b.in(op, 2).as<float>(),
                                      var = b.in(op, 3).as<float>(), eps = bn(op).eps,
                                      coef = b.out(op, 0).as<float>()](Stream s) {
                                convolt::bn_coefficients(s, c, gamma, beta, mean, var, eps, coef);
                              };
                            }};

// (w f32, bias or none, coef) -> (w folded f32, bias folded f32)
const OpDef bn_fold{.name = "bn_fold",
                    .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                      const Shape& w = p[op.in[0]].shape;
                      return {{DType::f32, w}, {DType::f32, {w[0]}}};
                    },
                    .bind = [](const Op& op, const Binding& b) -> Launch {
                      return
                          [w = b.in(op, 0), bias = b.in(op, 1).as<const float>(), coef = b.in(op, 2).as<const float>(),
                           out = b.out(op, 0), out_bias = b.out(op, 1).as<float>()](Stream s) {
                            convolt::bn_fold(s, w, bias, coef, out, out_bias);
                          };
                    }};

// (x, coef, residual or none, its coef or none) -> (y, mask where attrs ask for it)
const OpDef bn_apply{.name = "bn_apply",
                     .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                       const ValueInfo& x = p[op.in[0]];
                       if (!bn(op).mask) return {{x.dtype, x.shape}};
                       return {{x.dtype, x.shape}, {DType::u8, {x.shape.elements() / 8}}};
                     },
                     .bind = bind_apply,
                     .gradient = bn_apply_gradient,
                     .in_place = {{0, 0}, {2, 0}}};

// The mean of bn_apply's output, which is not stored: it may not lie where an operand does.
const OpDef bn_apply_mean{.name = "bn_apply_mean",
                          .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                            const ValueInfo& x = p[op.in[0]];
                            const TensorType mean{x.dtype, {x.shape[0], x.shape[-1]}};
                            if (!bn(op).mask) return {mean};
                            return {mean, {DType::u8, {x.shape.elements() / 8}}};
                          },
                          .bind = bind_apply};

const OpDef bn_backward_reduce{.name = "bn_backward_reduce",
                               .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                                 const int64_t c = p[op.in[0]].shape[-1];
                                 return {{DType::f32, {c}}, {DType::f32, {c}}};
                               },
                               .bind = [](const Op& op, const Binding& b) -> Launch {
                                 return
                                     [dy = b.in(op, 0), x = b.in(op, 1), coef = b.in(op, 2).as<const float>(),
                                      y = b.in(op, 3), act = bn(op).act, scratch = static_cast<float*>(b.scratch(op)),
                                      dgamma = b.out(op, 0).as<float>(), dbeta = b.out(op, 1).as<float>()](Stream s) {
                                       convolt::bn_backward_reduce(s, dy, x, y, coef, act, scratch, dgamma, dbeta);
                                     };
                               },
                               .scratch =
                                   [](const Op& op, const Program& p) {
                                     const Shape& x = p[op.in[0]].shape;
                                     return bn_backward_scratch(rows_of(x), static_cast<int>(x[-1]));
                                   }};

const OpDef bn_backward_apply{.name = "bn_backward_apply",
                              .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                                std::vector<TensorType> out{{p[op.in[0]].dtype, p[op.in[0]].shape}};
                                if (bn(op).residual_gradient) out.push_back(out[0]);
                                return out;
                              },
                              .bind = [](const Op& op, const Binding& b) -> Launch {
                                return [dy = b.in(op, 0), x = b.in(op, 1), coef = b.in(op, 2).as<const float>(),
                                        y = b.in(op, 3), dgamma = b.in(op, 4).as<const float>(),
                                        dbeta = b.in(op, 5).as<const float>(), act = bn(op).act, dx = b.out(op, 0),
                                        dz = b.out(op, 1), frozen = bn(op).frozen](Stream s) {
                                  convolt::bn_backward_apply(s, dy, x, y, coef, act, dgamma, dbeta, dx, dz, frozen);
                                };
                              },
                              .in_place = {{0, 0}}};

}  // namespace ops
}  // namespace convolt
