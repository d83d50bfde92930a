// What surrounds the network in a step: the batch comes in, the loss goes out, the optimizer updates.
#include "augment/policy.h"
#include "convolt/optimizer.h"
#include "graph/cost.h"
#include "graph/op.h"
#include "graph/optimizer_tables.h"
#include "loss.h"
#include "mix.h"
#include "ops/shared.h"
#include "optimizer.h"

namespace convolt {
namespace {

const AugmentOptions& augmentation(const Op& op) { return std::get<AugmentAttrs>(op.attrs).options; }

Launch bind_augment(const Op& op, const Binding& b) {
  const Tensor y = b.out(op, 0);
  AugmentArgs args = augment_args(augmentation(op), y.shape[0], b.scratch(op));
  args.input = b.input;
  args.y = y;
  args.blocks = std::get<AugmentAttrs>(op.attrs).blocks;
  return [args](Stream s) { convolt::augment(s, args); };
}

// Elements of the pictures that the op writes as `blocks` says, without what fills them up.
int64_t picture_elements(const Op& op, const Program& p, const PixelBlocks& blocks) {
  const Shape& y = p[op.out[0]].shape;
  if (blocks.channels == 0) return y.elements();
  const int64_t wide = y[0] * (y[1] - blocks.border.vertical()) * (y[2] - blocks.border.horizontal());
  return wide * blocks.block * blocks.block * blocks.channels;
}

// Of those with what fills them up, without a border.
int64_t written_bytes(const Op& op, const Program& p, const PixelBlocks& blocks) {
  const int64_t elements = picture_elements(op, p, blocks);
  const int64_t stored = blocks.channels == 0 ? elements : elements / blocks.channels * blocks.stored;
  return stored * size_of(p[op.out[0]].dtype);
}

Launch bind_load_images(const Op& op, const Binding& b) {
  const auto* stem = std::get_if<StemAttrs>(&op.attrs);
  const Tensor y = b.out(op, 0);
  if (stem == nullptr) return [input = b.input, y](Stream s) { convolt::load_images(s, input, y); };
  return [input = b.input, y, blocks = stem->blocks](Stream s) { convolt::load_images(s, input, blocks, y); };
}

Launch bind_mix(const Op& op, const Binding& b) {
  const auto* stem = std::get_if<StemAttrs>(&op.attrs);
  const MixArgs args{b.input, b.in(op, 0), stem != nullptr ? stem->blocks : PixelBlocks{}};
  return [args](Stream s) { convolt::mix(s, args); };
}

Launch bind_loss(const Op& op, const Binding& b) {
  const auto& attrs = std::get<LossAttrs>(op.attrs);
  const LossOptions& o = attrs.options;
  LossArgs args;
  args.logits = b.in(op, 0);
  if (attrs.gradient) args.dlogits = b.out(op, 0);
  args.kind = o.kind;
  args.dense = o.target == LossOptions::Target::dense;
  args.mixed = attrs.mixed;
  args.smoothing = o.smoothing;
  args.target_threshold = o.target_threshold.value_or(-1);
  args.class_weights = b.in(op, 1).as<const float>();
  args.positive_weights = b.in(op, 2).as<const float>();
  args.ignores = o.ignore_index.has_value();
  args.ignore_index = o.ignore_index.value_or(0);
  args.focal_gamma = o.focal_gamma;
  args.focal_alpha = o.focal_alpha;
  args.distill_alpha = o.distill_alpha;
  args.temperature = o.temperature;
  args.given_losses = b.in(op, 3).as<const float>();
  args.given_gradient = b.in(op, 4).as<const float>();
  args.input = b.input;
  args.row_values = static_cast<float*>(b.scratch(op));
  args.meters = b.meters;
  args.status = b.status;
  args.leaves_out_bad = attrs.leaves_out_bad;
  return [args](Stream s) { loss_and_gradient(s, args); };
}

// Besides the operands each row's weight, and its label or its targets and what a teacher says.
int64_t loss_bytes(const Op& op, const Program& p) {
  const LossOptions& o = std::get<LossAttrs>(op.attrs).options;
  const int64_t rows = p[op.in[0]].shape[0], elements = p[op.in[0]].shape.elements();
  const int64_t targets = o.target == LossOptions::Target::dense ? elements : rows;
  return bytes_of(op.in, p) + bytes_of(op.out, p) + 4 * (rows + targets + (o.distill_alpha > 0 ? elements : 0));
}

const OptimizerAttrs& optimizer(const Op& op) { return std::get<OptimizerAttrs>(op.attrs); }

int64_t elements_of(const std::vector<ValueId>& values, const Program& p) {
  int64_t n = 0;
  for (const ValueId v : values) n += p[v].shape.elements();
  return n;
}

// Weights, moments and averages are read and written, copies written, and gradients read twice where the update needs
// to know them all first.
int64_t update_bytes(const Op& op, const Program& p) {
  const OptimizerAttrs& attrs = optimizer(op);
  int64_t per_element = 8 + 8 * static_cast<int64_t>(attrs.optimizer->moments().size());
  if (attrs.optimizer->average() != nullptr) per_element += 8;
  if (attrs.rule.clip_adaptive > 0 || attrs.rule.kind == OptimizerKind::lars) per_element += 4;
  if (attrs.rule.kind == OptimizerKind::lamb) per_element += 12;
  int64_t gradients = bytes_of(op.in, p), copies = 0;
  if (p.gradient_sums != kNoValue) gradients = 4 * elements_of(op.in, p);
  for (const int param : attrs.params) copies += p.copy_bytes(param);
  const OptimizerTables tables = optimizer_tables(attrs);
  int64_t only_averaged = 0;
  for (size_t i = attrs.params.size(); i < tables.tensors.size(); ++i) only_averaged += tables.tensors[i].elements;
  return 12 * only_averaged + (attrs.rule.needs_norms() ? 2 : 1) * gradients + per_element * elements_of(op.in, p) +
         copies + muon_bytes(tables.tensors, attrs.rule);
}

}  // namespace

namespace ops {

const OpDef augment{
    .name = "augment",
    .infer = preset,
    .bind = bind_augment,
    // Pictures have sizes of their own; each is counted with one byte for a channel of the result.
    .bytes =
        [](const Op& op, const Program& p) {
          const PixelBlocks& blocks = std::get<AugmentAttrs>(op.attrs).blocks;
          const AugmentOptions& o = augmentation(op);
          return written_bytes(op, p, blocks) + (o.contrast > 0 ? 2 : 1) * picture_elements(op, p, blocks) +
                 augment_scratch_traffic(o, p[op.out[0]].shape[0]);
        },
    .scratch = [](const Op& op, const Program& p) { return augment_scratch(augmentation(op), p[op.out[0]].shape[0]); },
    .launches = [](const Op& op) { return augment_launches(augmentation(op)); }};

const OpDef load_images{
    .name = "load_images", .infer = preset, .bind = bind_load_images, .bytes = [](const Op& op, const Program& p) {
      const auto* stem = std::get_if<StemAttrs>(&op.attrs);
      const PixelBlocks blocks = stem != nullptr ? stem->blocks : PixelBlocks{};
      return written_bytes(op, p, blocks) + 4 * picture_elements(op, p, blocks);
    }};

// (pictures): changes them in place.
const OpDef mix{.name = "mix",
                .infer = preset,
                .bind = bind_mix,
                .bytes = [](const Op& op, const Program& p) { return 2 * p[op.in[0]].bytes(); },
                .effects = true};

// w -> the weights of a convolution over blocks of pixels; and the gradient of these -> that of w.
const OpDef stem_weights{.name = "stem_weights", .infer = preset, .bind = [](const Op& op, const Binding& b) -> Launch {
                           const auto& a = std::get<StemAttrs>(op.attrs);
                           return [w = b.in(op, 0), y = b.out(op, 0), a](Stream s) {
                             convolt::stem_weights(s, w, a.blocks, a.shift, y);
                           };
                         }};
const OpDef stem_weights_backward{.name = "stem_weights_backward",
                                  .infer = preset,
                                  .bind = [](const Op& op, const Binding& b) -> Launch {
                                    const auto& a = std::get<StemAttrs>(op.attrs);
                                    return [dy = b.in(op, 0), dw = b.out(op, 0), a](Stream s) {
                                      convolt::stem_weights_backward(s, dy, a.blocks, a.shift, dw);
                                    };
                                  },
                                  // Of what it reads the taps alone.
                                  .bytes = [](const Op& op, const Program& p) { return 2 * p[op.out[0]].bytes(); }};

const OpDef cast_weights{.name = "cast_weights", .infer = preset, .bind = [](const Op& op, const Binding& b) -> Launch {
                           return [x = b.in(op, 0), y = b.out(op, 0)](Stream s) { convolt::cast(s, x, y); };
                         }};

const OpDef cast{.name = "cast", .infer = preset, .bind = cast_weights.bind};

// (logits, class weights or none, positive weights or none, what custom_loss makes) -> the gradient of the logits
const OpDef loss{.name = "loss",
                 .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                   if (!std::get<LossAttrs>(op.attrs).gradient) return {};
                   return {{p[op.in[0]].dtype, p[op.in[0]].shape}};
                 },
                 .bind = bind_loss,
                 .bytes = loss_bytes,
                 .scratch = [](const Op& op, const Program& p) { return p[op.in[0]].shape[0] * int64_t{16}; },
                 .effects = true};

// (gradients...): adds them to the program's gradient_sums.
const OpDef accumulate_gradients{
    .name = "accumulate_gradients",
    .infer = preset,
    .bind = [](const Op& op, const Binding& b) -> Launch {
      return [args = b.update_args(op)](Stream s) { convolt::accumulate_gradients(s, args); };
    },
    .bytes = [](const Op& op, const Program& p) { return bytes_of(op.in, p) + 8 * elements_of(op.in, p); },
    .effects = true};

// (gradients...): updates weights and their 16-bit copies in Params, moments and average in the optimizer, and the
// loss scale.
const OpDef optimizer_update{
    .name = "optimizer_update",
    .infer = preset,
    .bind = [](const Op& op, const Binding& b) -> Launch {
      return [args = b.update_args(op)](Stream s) { convolt::optimizer_update(s, args); };
    },
    .flops = [](const Op& op,
                const Program&) { return muon_flops(optimizer_tables(optimizer(op)).tensors, optimizer(op).rule); },
    .bytes = update_bytes,
    .scratch =
        [](const Op& op, const Program&) {
          const OptimizerTables t = optimizer_tables(optimizer(op));
          return update_scratch_bytes(optimizer(op).rule, static_cast<int64_t>(t.tensors.size()),
                                      static_cast<int64_t>(t.pieces.size()), t.matrices.sizes);
        },
    .launches = [](const Op& op) { return update_launches(optimizer(op).rule); },
    .effects = true};

}  // namespace ops

}  // namespace convolt
