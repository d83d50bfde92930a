// optimizer.h: one tensor with gradients in the row's dtype, and where that has 16 bits a copy of the weights.
#include "optimizer.h"

#include <algorithm>

#include "bench/kernel_rows.h"

namespace convolt::bench {
namespace {

struct Extras {
  bool average = false, sums = false;
};

std::vector<OptimizerPiece> tiles_of(int64_t elements) {
  std::vector<OptimizerPiece> tiles;
  for (int64_t first = 0; first < elements; first += kOptimizerTile)
    tiles.push_back({0, first, std::min<int64_t>(kOptimizerTile, elements - first)});
  return tiles;
}

int moments_of(OptimizerKind kind) {
  switch (kind) {
    case OptimizerKind::adam:
    case OptimizerKind::adamw:
    case OptimizerKind::rmsprop:
    case OptimizerKind::lamb:
      return 2;
    default:
      return 1;
  }
}

OptimizerTensor tensor_of(Operands& o, const UpdateRule& rule, const Extras& extras) {
  const int64_t elements = std::max<int64_t>(8, o.tensor_bytes() / 4);
  OptimizerTensor t{.elements = elements, .pieces = (elements + kOptimizerTile - 1) / kOptimizerTile};
  t.weight_decay = 1e-4F;
  t.gradient_dtype = t.copy_dtype = o.dtype();
  const Tensor gradient = o.read({elements});
  t.gradient = gradient.data;
  if (rule.needs_norms()) o.count(gradient.bytes());
  if (extras.sums) {
    t.gradient_sum = o.updated({elements}).as<float>();
    return t;
  }
  t.weight = o.updated({elements}).as<float>();
  if (rule.kind == OptimizerKind::lars) o.count(elements * 4);
  if (rule.kind == OptimizerKind::lamb) o.count(elements * 12);
  for (int i = 0; i < moments_of(rule.kind); ++i) t.moments[i] = o.updated({elements}, 0.25F).as<float>();
  if (extras.average) t.average = o.updated({elements}).as<float>();
  if (o.dtype() != DType::f32) t.copy = o.written({elements}).data;
  return t;
}

UpdateArgs args_of(Operands& o, const UpdateRule& rule, const Extras& extras) {
  const OptimizerTensor tensor = tensor_of(o, rule, extras);
  const std::vector<OptimizerPiece> tiles = tiles_of(tensor.elements);
  UpdateArgs args{.rule = rule, .tensors = o.structs<OptimizerTensor>({tensor}), .tensor_count = 1};
  args.tiles = args.pieces = o.structs(tiles);
  args.tile_count = args.piece_count = tensor.pieces;
  // The second of two micro-batches, so that the sum is read too.
  StepInput input{.learning_rate = 1e-6F, .weight_sum = 1};
  if (extras.sums) input.micro_batch = 1, input.micro_batches = 2;
  args.input = o.structs<StepInput>({input});
  args.status = o.structs<StepStatus>({{}});
  args.updates = o.structs<int64_t>({0});
  args.scratch = o.scratch(update_scratch_bytes(rule, 1, tensor.pieces));
  return args;
}

// Of the plain update of one element, without norms.
int operations_of(OptimizerKind kind) {
  switch (kind) {
    case OptimizerKind::sgd:
      return 7;
    case OptimizerKind::adam:
    case OptimizerKind::adamw:
      return 16;
    default:
      return 0;
  }
}

KernelRow update(const std::string& name, const UpdateRule& rule, const Extras& extras = {}) {
  return {name, [=](Operands& o) -> Work {
            const UpdateArgs args = args_of(o, rule, extras);
            if (!rule.needs_norms() && !extras.average) o.operations(operations_of(rule.kind) * o.shape().elements());
            return [args](Stream s) { optimizer_update(s, args); };
          }};
}

Work make_accumulate(Operands& o) {
  const UpdateArgs args = args_of(o, {}, {.sums = true});
  return [args](Stream s) { accumulate_gradients(s, args); };
}

}  // namespace

std::vector<KernelRow> optimizer_rows() {
  using Kind = OptimizerKind;
  return {update("optimizer sgd", {.kind = Kind::sgd}),
          update("optimizer adam", {.kind = Kind::adam}),
          update("optimizer adamw", {.kind = Kind::adamw}),
          update("optimizer rmsprop", {.kind = Kind::rmsprop}),
          update("optimizer lars", {.kind = Kind::lars}),
          update("optimizer lion", {.kind = Kind::lion}),
          update("optimizer lamb", {.kind = Kind::lamb, .eps = 1e-6, .clip_norm = 1}),
          update("optimizer sgd and average", {.average_decay = 0.999}, {.average = true}),
          update("optimizer sgd clipped", {.clip_norm = 1}),
          {"accumulate_gradients", make_accumulate}};
}

}  // namespace convolt::bench
