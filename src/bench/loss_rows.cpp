// loss.h. A row of logits is read from memory once and from cache after that; labels and meters do not count.
#include "loss.h"

#include "bench/kernel_rows.h"

namespace convolt::bench {
namespace {

StepInput input_of(Operands& o, int64_t rows, int64_t classes) {
  std::vector<int32_t> labels;
  for (int64_t n = 0; n < rows; ++n) labels.push_back(static_cast<int32_t>(n * 7 % classes));
  return {.weight_sum = static_cast<float>(rows), .labels = o.structs(labels), .weights = o.table(rows, 1, 1)};
}

// dense: the targets are a tensor.
Work loss_of(Operands& o, LossArgs args, int64_t classes, bool dense) {
  args.logits = o.read(o.matrix(classes), -4, 4);
  args.dlogits = o.written(args.logits.shape);
  const int64_t rows = args.logits.shape[0];
  StepInput input = input_of(o, rows, classes);
  args.dense = dense;
  if (dense) input.targets = o.read_as(DType::f32, args.logits.shape, 0, 1).as<float>();
  args.input = o.structs<StepInput>({input});
  args.row_values = o.scratch(rows * 4 * 4);
  args.meters = o.structs<Meters>({{}});
  args.status = o.structs<StepStatus>({{}});
  return [args](Stream s) { loss_and_gradient(s, args); };
}
Work make_cross_entropy(Operands& o) { return loss_of(o, {.smoothing = 0.1F}, 1000, false); }
Work make_cross_entropy_10(Operands& o) { return loss_of(o, {}, 10, false); }
Work make_focal(Operands& o) { return loss_of(o, {.kind = LossKind::focal}, 1000, false); }
Work make_binary(Operands& o) { return loss_of(o, {.kind = LossKind::binary_cross_entropy}, 1000, true); }
Work make_squares(Operands& o) { return loss_of(o, {.kind = LossKind::mean_squared_error}, 1000, true); }

Work make_softmax(Operands& o) {
  const Tensor logits = o.read(o.matrix(1000), -4, 4), p = o.written_as(DType::f32, logits.shape);
  return [=](Stream s) { softmax(s, logits, p.as<float>()); };
}

}  // namespace

std::vector<KernelRow> loss_rows() {
  return {{"loss cross_entropy 1000 classes", make_cross_entropy},
          {"loss cross_entropy 10 classes", make_cross_entropy_10},
          {"loss focal 1000 classes", make_focal},
          {"loss binary_cross_entropy 1000 classes", make_binary},
          {"loss mean_squared_error 1000 classes", make_squares},
          {"softmax 1000 classes", make_softmax}};
}

}  // namespace convolt::bench
