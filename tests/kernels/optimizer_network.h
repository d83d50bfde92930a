// Tensors on the device with the tables that the optimizer's kernels read.
#pragma once

#include <memory>
#include <vector>

#include "kernel_test.h"
#include "muon.h"
#include "reference/optimizer.h"

namespace convolt::test {

using Vector = std::vector<double>;

struct Made {
  DType gradient_dtype = DType::f32, copy_dtype = DType::f32;
  bool average = false, sums = false;
  int64_t unit = 0;           // adaptive clipping; 0: the whole tensor
  std::vector<int64_t> rows;  // muon: of each tensor as a matrix, 0 for none
};

class Network {
public:
  Network(Context& context, const std::vector<int64_t>& sizes, const UpdateRule& rule, const Made& made = {})
      : context_(&context), rule_(rule) {
    for (const int64_t n : sizes) append(n, made);
    input.learning_rate = 0.125F;
    count_ = std::make_unique<DeviceArray<int64_t>>(context, std::vector<int64_t>{0});
    set_status({});
  }

  void set_status(const StepStatus& value) {
    status = std::make_unique<DeviceArray<StepStatus>>(*context_, std::vector{value});
  }
  void step() { launch(optimizer_update); }
  void accumulate() { launch(accumulate_gradients); }
  int64_t updates() const { return count_->value(); }
  std::vector<Vector> values() const {
    std::vector<Vector> all;
    for (const auto* list : {&weights, &first, &second, &copies, &averages})
      for (const auto& t : *list) all.push_back(t->values());
    return all;
  }
  void check_guards() const {
    for (const auto* list : {&weights, &first, &second, &gradients, &copies, &averages, &sums})
      for (const auto& t : *list) t->check_guards();
  }

  std::vector<std::unique_ptr<DeviceTensor>> weights, first, second, gradients, copies, averages, sums;
  std::vector<OptimizerTensor> table;
  StepInput input;
  std::unique_ptr<DeviceArray<StepStatus>> status;

private:
  using List = std::vector<std::unique_ptr<DeviceTensor>>;

  void* add(List& list, DType dtype, int64_t n, const Vector& values) {
    return list.emplace_back(std::make_unique<DeviceTensor>(*context_, dtype, Shape{n}, values))->tensor().data;
  }
  void append(int64_t n, const Made& made) {
    const auto seed = static_cast<uint64_t>(n);
    const Vector start = random_values(n, seed), zeros(static_cast<size_t>(n));
    OptimizerTensor t{.elements = n, .gradient_dtype = made.gradient_dtype, .copy_dtype = made.copy_dtype};
    const auto index = static_cast<int32_t>(table.size());
    t.weight = static_cast<float*>(add(weights, DType::f32, n, start));
    t.moments[0] = static_cast<float*>(add(first, DType::f32, n, zeros));
    t.moments[1] = static_cast<float*>(add(second, DType::f32, n, zeros));
    t.gradient = add(gradients, made.gradient_dtype, n, random_values(n, seed + 1));
    if (made.copy_dtype != DType::f32) t.copy = add(copies, made.copy_dtype, n, zeros);
    if (made.average) t.average = static_cast<float*>(add(averages, DType::f32, n, start));
    if (made.sums) t.gradient_sum = static_cast<float*>(add(sums, DType::f32, n, Vector(zeros.size(), 777)));
    cut(tiles_, index, n, kOptimizerTile);
    t.first_piece = static_cast<int64_t>(pieces_.size());
    const bool units = rule_.clip_adaptive > 0;
    if (units) t.unit = static_cast<int32_t>(made.unit > 0 && n % made.unit == 0 ? made.unit : n);
    cut(pieces_, index, n, units ? t.unit : kOptimizerTile);
    t.pieces = static_cast<int64_t>(pieces_.size()) - t.first_piece;
    if (made.rows.size() > table.size() && made.rows[table.size()] > 0)
      matrices_.add(t, index, made.rows[table.size()], n / made.rows[table.size()]);
    table.push_back(t);
  }
  static void cut(std::vector<OptimizerPiece>& pieces, int32_t tensor, int64_t n, int64_t size) {
    for (int64_t at = 0; at < n; at += size) pieces.push_back({tensor, at, std::min(size, n - at)});
  }
  void launch(void (*kernel)(Stream, const UpdateArgs&)) {
    const DeviceArray<OptimizerTensor> tensors(*context_, table);
    const DeviceArray<OptimizerPiece> tiles(*context_, tiles_), pieces(*context_, pieces_);
    const DeviceArray<MatrixTile> grams(*context_, matrices_.grams), matrices(*context_, matrices_.matrices);
    const DeviceArray<StepInput> in(*context_, {input});
    const auto tensor_count = static_cast<int64_t>(table.size()), piece_count = static_cast<int64_t>(pieces_.size());
    const DeviceTensor scratch(*context_, DType::u8,
                               {update_scratch_bytes(rule_, tensor_count, piece_count, matrices_.sizes)});
    const UpdateArgs args{.rule = rule_,
                          .tensors = tensors.get(),
                          .tensor_count = tensor_count,
                          .tiles = tiles.get(),
                          .tile_count = static_cast<int64_t>(tiles_.size()),
                          .pieces = pieces.get(),
                          .piece_count = piece_count,
                          .gram_tiles = grams.get(),
                          .gram_tile_count = static_cast<int64_t>(matrices_.grams.size()),
                          .matrix_tiles = matrices.get(),
                          .matrix_tile_count = static_cast<int64_t>(matrices_.matrices.size()),
                          .matrices = matrices_.sizes,
                          .input = in.get(),
                          .status = status->get(),
                          .updates = count_->get(),
                          .scratch = scratch.tensor().data};
    run(*context_, [&](Stream s) { kernel(s, args); });
    scratch.check_guards();
  }

  Context* context_;
  UpdateRule rule_;
  std::vector<OptimizerPiece> tiles_, pieces_;
  MatrixTables matrices_;
  std::unique_ptr<DeviceArray<int64_t>> count_;
};

inline UpdateRule rule_of(const reference::Optimizer& o) {
  return {.kind = o.kind,
          .momentum = static_cast<float>(o.momentum),
          .nesterov = o.nesterov,
          .beta1 = o.beta1,
          .beta2 = o.beta2,
          .alpha = o.alpha,
          .eps = o.eps,
          .trust = static_cast<float>(o.trust),
          .matrix_momentum = static_cast<float>(o.matrix_momentum),
          .iterations = o.iterations,
          .renormalise = o.renormalise};
}

}  // namespace convolt::test
