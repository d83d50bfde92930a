#include "graph/compiled_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "conv/autotune.h"
#include "graph/cost.h"
#include "graph/passes/fusion.h"
#include "graph/passes/recompute.h"
#include "graph/readable.h"
#include "loss.h"
#include "step_state.h"

namespace convolt {

namespace {

// Throws ShapeError where the Params are another graph's.
void check_params(const Params& params, const Graph& graph) {
  const auto text = [](const ParamSpec& p) { return fmt::format("'{}' {}", p.name, p.file_shape().to_string()); };
  const std::vector<ParamSpec>&wanted = graph.params(), &found = params.specs();
  for (size_t i = 0; i < std::max(wanted.size(), found.size()); ++i) {
    const std::string w = i < wanted.size() ? text(wanted[i]) : "none", f = i < found.size() ? text(found[i]) : "none";
    if (w != f)
      throw ShapeError(
          fmt::format("the Params are not this graph's: as parameter {} it wants {}, they have {}; make "
                      "Params of the finished graph",
                      i, w, f));
  }
}

}  // namespace

CompiledPlan::CompiledPlan(const Graph& graph, const Params& params, const PlanOptions& o, Autotuner& tuner,
                           int64_t free_bytes)
    : options(o),
      provider(tuner.allowed().describe()),
      parameter_bytes(params.bytes_with_copy(o.dtype)),
      optimizer_bytes(o.optimizer != nullptr ? o.optimizer->bytes() : 0) {
  check_params(params, graph);
  if (options.optimizer != nullptr && &options.optimizer->params() != &params)
    throw UsageError("the optimizer of a plan belongs to other Params");
  ConvProvider& convolutions = tuner.allowed();
  if (options.batch < 1) throw UsageError("a plan needs a batch of at least 1, found " + std::to_string(options.batch));
  if (options.dtype != DType::f32 && options.dtype != DType::bf16 && options.dtype != DType::f16)
    throw UsageError("a plan computes in f32, bf16 or f16, found " + std::string(name_of(options.dtype)));
  if (options.optimizer != nullptr && !options.training)
    throw UsageError("a plan with an optimizer must be a training plan");
  if (options.accumulate < 1 || (options.accumulate > 1 && options.optimizer == nullptr))
    throw UsageError("a plan accumulates at least 1 micro-batch, and more only with an optimizer; found " +
                     std::to_string(options.accumulate));
  program = lower(graph, options);
  batch_statistics =
      options.training && std::ranges::any_of(graph.params(), [](const ParamSpec& p) { return !p.trainable; });
  const Shape image = program[program.step[0].out[0]].shape;  // a copy: values grow below
  height = static_cast<int>(image[1]);
  width = static_cast<int>(image[2]);
  if (options.passes.fold && !options.training) {
    fold_batch_norm(program);
    if (options.passes.dead_code) remove_dead_code(program);
  }
  if (options.passes.fuse) fuse(program, convolutions, options.training);
  lower_training(program, options);
  if (options.passes.dead_code) remove_dead_code(program);
  if (options.passes.stem) lay_out_stem(program, {convolutions, options.compose_fusions}, options.training);
  if (options.training) fuse_batch_norms(tuner);
  choose_kernels(program, tuner, options.training, options.compose_fusions);
  kernels = tuner.choices();

  const auto block = [&](const char* name, int64_t bytes) {
    return program.add({.name = name, .dtype = DType::u8, .shape = {bytes}, .persistent = true});
  };
  program.step_input = block("step input", sizeof(StepInput));
  program.step_status = block("step status", sizeof(StepStatus));
  program.meters = block("meters", sizeof(Meters));
  if (!options.augment) {
    images = program.add({.name = "images", .dtype = DType::f32, .shape = image, .persistent = true});
    labels = program.add({.name = "labels", .dtype = DType::i32, .shape = {image[0]}, .persistent = true});
    weights = program.add({.name = "weights", .dtype = DType::f32, .shape = {image[0]}, .persistent = true});
    // What a batch of fewer rows leaves alone must be numbers: batch norms see it.
    program.zeroed.insert(program.zeroed.end(), {images, labels});
  }
  add_scratch();
  add_tables();
  const auto place = [&](ValueId v) { return memory.places[static_cast<size_t>(v)]; };
  memory = plan_memory(program, options.passes.in_place);
  fit(free_bytes, convolutions.rates());
  verify(program, memory);
  for (Op& op : program.step)
    if (op.def == &ops::flatten || op.def == &ops::flatten_backward)
      op.view = place(op.in[0]).group == place(op.out[0]).group;
}

void CompiledPlan::fuse_batch_norms(Autotuner& tuner) {
  Fusions fusions{tuner.allowed(), options.compose_fusions};
  if (!options.compose_fusions)
    fusions.pays = [&](const ConvDesc& fused) {
      ConvDesc plain = fused;
      plain.epilogue = ConvEpilogue::none;
      const auto bytes = static_cast<double>(fused.geometry.y_shape().elements() * size_of(fused.dtype));
      return tuner.pays(fused, plain, std::llround(1e9 * bytes / tuner.allowed().rates().copy));
    };
  const Passes& on = options.passes;
  if (on.pool) fuse_bn_pool(program);
  if (on.statistics) fuse_statistics(program, fusions);
  if (on.prologue) fuse_prologues(program, fusions);
  if (on.dgrad) fuse_dgrad(program, fusions);
  if (on.block_end) fuse_block_ends(program);
  if (on.dgrad) fuse_dgrad_joins(program, fusions);
  if (on.sweeps) fuse_sweeps(program);
  if (on.linear) fuse_linear(program, fusions);
}

void CompiledPlan::add_scratch() {
  const auto add = [&](Op& op, bool persistent) {
    const int64_t bytes = op.def->scratch != nullptr ? op.def->scratch(op, program) : 0;
    if (bytes > 0)
      op.scratch =
          program.add({.name = op.layer + " scratch", .dtype = DType::u8, .shape = {bytes}, .persistent = persistent});
  };
  for (Op& op : program.step) add(op, false);
  for (Op& op : program.prepare) add(op, true);
}

void CompiledPlan::add_tables() {
  if (options.optimizer == nullptr) return;
  tables = optimizer_tables(std::get<OptimizerAttrs>(program.step.back().attrs));
  const auto table = [&](const char* name, size_t bytes) {
    return program.add({.name = name, .dtype = DType::u8, .shape = {static_cast<int64_t>(bytes)}, .persistent = true});
  };
  device_tensors = table("optimizer tensors", tables.tensors.size() * sizeof(OptimizerTensor));
  device_tiles = table("optimizer tiles", tables.tiles.size() * sizeof(OptimizerPiece));
  device_pieces = table("optimizer pieces", tables.pieces.size() * sizeof(OptimizerPiece));
  if (tables.matrices.grams.empty()) return;
  device_gram_tiles = table("tiles of Gram matrices", tables.matrices.grams.size() * sizeof(MatrixTile));
  device_matrix_tiles = table("tiles of matrices", tables.matrices.matrices.size() * sizeof(MatrixTile));
}

namespace {

std::string text_of(int64_t bytes) { return readable(static_cast<double>(bytes), "B"); }

// As a flag takes it, rounded up, and as it is told else: "8637M (9.1 GB)".
std::string as_flag(int64_t bytes) {
  int64_t size = bytes;
  size_t unit = 0;
  for (; unit < 3 && (size >= 10000 || (size >= 1024 && size % 1024 == 0)); ++unit) size = (size + 1023) / 1024;
  return std::to_string(size) + std::string(unit > 0 ? 1 : 0, " KMG"[unit]) + " (" + text_of(bytes) + ")";
}

// The largest batch whose slab fits, if what is there once for each row grows with it.
int64_t fitting_batch(const Program& program, int64_t slab, int64_t limit, int batch) {
  int64_t fixed = 0;
  for (const ValueInfo& v : program.values)
    if (v.home == Home::slab && v.persistent && (v.shape.rank() == 0 || v.shape[0] != batch)) fixed += v.bytes();
  const double row = static_cast<double>(slab - fixed) / batch;
  return limit <= fixed ? 0
                        : std::min<int64_t>(batch - 1, static_cast<int64_t>(static_cast<double>(limit - fixed) / row));
}

}  // namespace

void CompiledPlan::fit(int64_t free_bytes, const DeviceRates& rates) {
  const bool asked = options.memory_budget.has_value();
  const int64_t others = asked ? parameter_bytes + optimizer_bytes : 0;
  const int64_t limit = asked ? *options.memory_budget - others : free_bytes, before = memory.bytes;
  if (before <= limit) return;
  // Of what is free a tenth is left to validation and whatever else comes later.
  const int again = options.training ? recompute_within(asked ? limit : limit / 10 * 9, rates) : 0;
  if (memory.bytes <= limit) {
    if (!asked && options.kernels.warning)
      options.kernels.warning(
          fmt::format("{} of device memory are free, and the training step of batch {} wants {}: {} "
                      "ops are recomputed instead of kept; a smaller batch (-b) avoids that",
                      text_of(free_bytes), options.batch, text_of(before), again));
    return;
  }
  const int64_t batch = fitting_batch(program, memory.bytes, limit, options.batch);
  throw OutOfMemoryError(
      fmt::format("the plan of {} of batch {} needs {}{}{}, and {}; {}{}",
                  options.training ? "a training step" : "an evaluation", options.batch, text_of(before + others),
                  !asked                         ? ""
                  : options.optimizer != nullptr ? " with parameters and optimizer"
                                                 : " with parameters",
                  options.training ? ", or " + text_of(memory.bytes + others) + " by recomputing all that helps" : "",
                  asked ? "the memory budget is " + as_flag(*options.memory_budget)
                        : text_of(free_bytes) + " of device memory are free",
                  batch > 0 ? fmt::format("a batch of about {} fits", batch) : "not even a batch of 1 fits",
                  asked ? "; a budget of " + as_flag(memory.bytes + others) + " would do" : ""));
}

int CompiledPlan::recompute_within(int64_t limit, const DeviceRates& rates) {
  Recomputed r = recompute(program, memory,
                           {.limit = limit,
                            .in_place = options.passes.in_place,
                            .rates = rates,
                            .dtype = options.dtype,
                            .tf32 = options.tf32});
  if (r.ops == 0) return 0;
  double step = 0;
  for (const Op& op : program.step) step += time_bound(cost_of(op, program), rates, options.dtype, options.tf32);
  r.program.pass_log.push_back(
      fmt::format("recompute: {} ops run again before their gradients: {} less memory, {:.1f} % more time by what they "
                  "move and multiply",
                  r.ops, text_of(memory.bytes - r.memory.bytes), 100 * r.seconds / step));
  program = std::move(r.program);
  memory = std::move(r.memory);
  return r.ops;
}

}  // namespace convolt
