// An operation, described once: what it makes, its gradient, its cost, its kernel. The planner, the cost model and
// describe() read this.
#pragma once

#include <functional>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "convolt/tensor.h"
#include "graph/program.h"

namespace convolt {

class GradientBuilder;

struct TensorType {
  DType dtype = DType::f32;
  Shape shape;
};

using Launch = std::function<void(Stream)>;

// Resolves an op's operands to memory, once the plan is laid out.
class Binding {
public:
  virtual ~Binding() = default;
  virtual Tensor tensor(ValueId id) const = 0;  // data is null for kNoValue
  // Of an op with OptimizerAttrs.
  virtual UpdateArgs update_args(const Op& op) const = 0;
  const StepInput* input = nullptr;
  StepStatus* status = nullptr;
  Meters* meters = nullptr;
  Queue* queue = nullptr;  // that the launches run in

  Tensor in(const Op& op, size_t i) const { return i < op.in.size() ? tensor(op.in[i]) : Tensor{}; }
  Tensor out(const Op& op, size_t i) const { return i < op.out.size() ? tensor(op.out[i]) : Tensor{}; }
  void* scratch(const Op& op) const { return tensor(op.scratch).data; }
};

struct OpDef {
  std::string_view name;
  // Types of the outputs, from the program's values and the op's inputs and attributes.
  std::vector<TensorType> (*infer)(const Op& op, const Program& program);
  Launch (*bind)(const Op& op, const Binding& binding);
  // Emits the ops of the gradient, once any output has one (of the other outputs it is zero); null: nothing flows back.
  void (*gradient)(const Op& op, GradientBuilder& builder) = nullptr;
  // Multiply-adds times two, and more than nothing only where it matters.
  int64_t (*flops)(const Op& op, const Program& program) = nullptr;
  // Bytes that its kernels read and write, besides scratch; each operand once unless said.
  int64_t (*bytes)(const Op& op, const Program& program) = nullptr;
  // Bytes of memory it needs while it runs.
  int64_t (*scratch)(const Op& op, const Program& program) = nullptr;
  // Kernel launches; 1 unless said.
  int (*launches)(const Op& op) = nullptr;
  // Pairs (input, output) that may share memory when nobody reads the input later.
  std::vector<std::pair<size_t, size_t>> in_place = {};
  // It changes something besides its outputs (running statistics, weights): never dead.
  bool effects = false;
};

// Appends an op to a list and makes its output values; returns their ids.
std::vector<ValueId> emit(Program& program, std::vector<Op>& list, Op op, const std::string& value_name);

// Builds the backward op list from the forward one.
class GradientBuilder {
public:
  GradientBuilder(Program& program, std::vector<Op>& list);
  // The gradient of the op's output i, kNoValue where nothing flows.
  ValueId gradient_of(ValueId value) const { return gradients_[static_cast<size_t>(value)]; }
  // True where someone wants the gradient of this value.
  bool wanted(ValueId value) const { return wanted_[static_cast<size_t>(value)]; }
  // Adds to the gradient of a value: the first is taken as it is, later ones are joined by explicit add ops.
  void flow(ValueId value, ValueId gradient);
  // Makes `gradient` that of a parameter.
  void flow_to_param(ValueId param_value, ValueId gradient);
  std::vector<ValueId> emit(Op op, const std::string& value_name);
  Program& program() { return program_; }
  // Walks the forward ops backwards from `root`, whose gradient is `root_gradient`.
  void run(const std::vector<Op>& forward, ValueId root, ValueId root_gradient);

private:
  void mark_wanted(const std::vector<Op>& forward);
  Program& program_;
  std::vector<Op>& list_;
  std::vector<ValueId> gradients_;
  std::vector<bool> wanted_;
};

// All ops there are, by the file of src/ops/ that describes them.
namespace ops {
extern const OpDef augment, load_images, mix, cast_weights, cast, stem_weights, stem_weights_backward;
extern const OpDef conv_fprop, conv_dgrad, conv_wgrad, pack_weights, unpack_gradient, linear_fprop, linear_dgrad,
    linear_wgrad, add_bias, channel_sum;
extern const OpDef channel_stats, bn_finalize, bn_finalize_pair, bn_statistics, bn_coefficients, bn_fold, bn_apply,
    bn_apply_mean, bn_backward_reduce, bn_backward_apply, bn_backward_join, bn_backward_pair, bn_max_pool,
    bn_max_pool_backward_reduce, bn_max_pool_backward_apply;
extern const OpDef activation, activation_backward, activation_backward_sum, add, dropout, dropout_backward;
extern const OpDef max_pool, max_pool_backward, avg_pool, avg_pool_backward, global_avg_pool, global_avg_pool_backward,
    slice_pad, slice_pad_backward, flatten, flatten_backward;
extern const OpDef norm, norm_backward_params, norm_backward, layer_norm_backward;
extern const OpDef pad, pad_backward, resample, resample_backward;
extern const OpDef adaptive_avg_pool, adaptive_avg_pool_backward;
extern const OpDef concat, split, channel_shuffle, mul, mul_backward_broadcast, scale_channels, scale_channels_backward,
    stochastic_depth, branch_end, branch_end_backward;
extern const OpDef loss, custom_loss, accumulate_gradients, optimizer_update;
}  // namespace ops

}  // namespace convolt
