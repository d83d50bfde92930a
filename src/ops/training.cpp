// What surrounds the network in a step: the batch comes in, the loss goes out, the optimizer updates.
#include "augment.h"
#include "graph/op.h"
#include "loss.h"
#include "sgd.h"

namespace convolt {
namespace {

std::vector<TensorType> preset(const Op&, const Program&) { return {}; }

bool uses_contrast(const Op& op) { return std::get<AugmentAttrs>(op.attrs).options.contrast > 0; }

Launch bind_augment(const Op& op, const Binding& b) {
  const AugmentOptions& o = std::get<AugmentAttrs>(op.attrs).options;
  AugmentArgs args;
  args.input = b.input;
  for (size_t i = 0; i < 3; ++i) {
    args.mean[i] = o.mean[i];
    args.std[i] = o.std[i];
    args.fill[i] = o.fill[i];
  }
  args.contrast = uses_contrast(op);
  args.grey_sums = static_cast<float*>(b.scratch(op));
  args.y = b.out(op, 0);
  return [args](Stream s) { convolt::augment(s, args); };
}

Launch bind_loss(const Op& op, const Binding& b) {
  const auto& attrs = std::get<LossAttrs>(op.attrs);
  const LossOptions& o = attrs.options;
  LossArgs args;
  args.logits = b.in(op, 0);
  if (attrs.gradient) args.dlogits = b.out(op, 0);
  args.kind = o.kind;
  args.dense = o.target == LossOptions::Target::dense;
  args.smoothing = o.smoothing;
  args.class_weights = b.in(op, 1).as<const float>();
  args.positive_weights = b.in(op, 2).as<const float>();
  args.ignores = o.ignore_index.has_value();
  args.ignore_index = o.ignore_index.value_or(0);
  args.focal_gamma = o.focal_gamma;
  args.focal_alpha = o.focal_alpha;
  args.distill_alpha = o.distill_alpha;
  args.temperature = o.temperature;
  args.input = b.input;
  args.row_values = static_cast<float*>(b.scratch(op));
  args.meters = b.meters;
  args.status = b.status;
  return [args](Stream s) { loss_and_gradient(s, args); };
}

int64_t tiles_of(const Op& op, const Program& p) {
  int64_t tiles = 0;
  for (const ValueId g : op.in) tiles += (p[g].shape.elements() + kOptimizerTile - 1) / kOptimizerTile;
  return tiles;
}

Launch bind_sgd(const Op& op, const Binding& b) {
  const auto& attrs = std::get<OptimizerAttrs>(op.attrs);
  SgdArgs args;
  args.tensors = b.optimizer_tensors(op);
  args.tiles = b.optimizer_tiles(op);
  args.tile_count = b.optimizer_tile_count(op);
  args.group = attrs.group;
  args.momentum = attrs.momentum;
  args.weight_decay = attrs.weight_decay;
  args.nesterov = attrs.nesterov;
  args.input = b.input;
  args.status = b.status;
  return [args](Stream s) { sgd_step(s, args); };
}

}  // namespace

namespace ops {

const OpDef augment{.name = "augment",
                    .infer = preset,
                    .bind = bind_augment,
                    .scratch =
                        [](const Op& op, const Program& p) {
                          const Shape& y = p[op.out[0]].shape;
                          return uses_contrast(op) ? y[0] * y[1] * int64_t{4} : int64_t{0};
                        },
                    .launches = [](const Op& op) { return uses_contrast(op) ? 2 : 1; }};

const OpDef load_images{.name = "load_images", .infer = preset, .bind = [](const Op& op, const Binding& b) -> Launch {
                          return [input = b.input, y = b.out(op, 0)](Stream s) { convolt::load_images(s, input, y); };
                        }};

const OpDef cast_weights{.name = "cast_weights", .infer = preset, .bind = [](const Op& op, const Binding& b) -> Launch {
                           return [x = b.in(op, 0), y = b.out(op, 0)](Stream s) { convolt::cast(s, x, y); };
                         }};

const OpDef cast{.name = "cast", .infer = preset, .bind = cast_weights.bind};

// (logits, class weights or none, positive weights or none) -> the gradient of the logits
const OpDef loss{.name = "loss",
                 .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                   if (!std::get<LossAttrs>(op.attrs).gradient) return {};
                   return {{p[op.in[0]].dtype, p[op.in[0]].shape}};
                 },
                 .bind = bind_loss,
                 .scratch = [](const Op& op, const Program& p) { return p[op.in[0]].shape[0] * int64_t{16}; },
                 .launches = [](const Op&) { return 2; },
                 .effects = true};

// (gradients...): updates weights and moments in Params and the optimizer.
const OpDef sgd{.name = "sgd", .infer = preset, .bind = bind_sgd, .effects = true};

// (gradients...): with dynamic loss scaling, whether this step is to be skipped; before the updates.
const OpDef check_gradients{.name = "check_gradients",
                            .infer = preset,
                            .bind = [](const Op& op, const Binding& b) -> Launch {
                              SgdArgs args;
                              args.tensors = b.optimizer_tensors(op);
                              args.tiles = b.optimizer_tiles(op);
                              args.tile_count = b.optimizer_tile_count(op);
                              return [args, flags = static_cast<int32_t*>(b.scratch(op)), status = b.status](Stream s) {
                                convolt::check_gradients(s, args, flags, status);
                              };
                            },
                            .scratch = [](const Op& op, const Program& p) { return tiles_of(op, p) * int64_t{4}; },
                            .launches = [](const Op&) { return 2; },
                            .effects = true};
const OpDef update_loss_scale{.name = "update_loss_scale",
                              .infer = preset,
                              .bind = [](const Op&, const Binding& b) -> Launch {
                                return [status = b.status](Stream s) { convolt::update_loss_scale(s, status); };
                              },
                              .effects = true};

}  // namespace ops

const std::vector<const OpDef*>& all_ops() {
  static const std::vector<const OpDef*> table{&ops::augment,
                                               &ops::load_images,
                                               &ops::cast_weights,
                                               &ops::cast,
                                               &ops::conv_fprop,
                                               &ops::conv_dgrad,
                                               &ops::conv_wgrad,
                                               &ops::pack_weights,
                                               &ops::unpack_gradient,
                                               &ops::linear_fprop,
                                               &ops::linear_dgrad,
                                               &ops::linear_wgrad,
                                               &ops::add_bias,
                                               &ops::channel_sum,
                                               &ops::channel_stats,
                                               &ops::bn_finalize,
                                               &ops::bn_coefficients,
                                               &ops::bn_fold,
                                               &ops::bn_apply,
                                               &ops::bn_backward_reduce,
                                               &ops::bn_backward_apply,
                                               &ops::activation,
                                               &ops::activation_backward,
                                               &ops::add,
                                               &ops::dropout,
                                               &ops::dropout_backward,
                                               &ops::max_pool,
                                               &ops::max_pool_backward,
                                               &ops::avg_pool,
                                               &ops::avg_pool_backward,
                                               &ops::global_avg_pool,
                                               &ops::global_avg_pool_backward,
                                               &ops::slice_pad,
                                               &ops::slice_pad_backward,
                                               &ops::flatten,
                                               &ops::flatten_backward,
                                               &ops::norm,
                                               &ops::norm_backward_params,
                                               &ops::norm_backward,
                                               &ops::pad,
                                               &ops::pad_backward,
                                               &ops::resample,
                                               &ops::resample_backward,
                                               &ops::adaptive_avg_pool,
                                               &ops::adaptive_avg_pool_backward,
                                               &ops::concat,
                                               &ops::split,
                                               &ops::channel_shuffle,
                                               &ops::mul,
                                               &ops::mul_backward_broadcast,
                                               &ops::scale_channels,
                                               &ops::scale_channels_backward,
                                               &ops::stochastic_depth,
                                               &ops::loss,
                                               &ops::sgd,
                                               &ops::check_gradients,
                                               &ops::update_loss_scale};
  return table;
}

}  // namespace convolt
