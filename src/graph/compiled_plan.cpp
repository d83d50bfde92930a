#include "graph/compiled_plan.h"

#include "conv/autotune.h"
#include "graph/passes/fusion.h"
#include "loss.h"
#include "step_state.h"

namespace convolt {

CompiledPlan::CompiledPlan(const Graph& graph, const PlanOptions& o, Autotuner& tuner)
    : options(o), provider(tuner.allowed().describe()) {
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
  if (options.training) fuse_batch_norms(convolutions);
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
  }
  add_scratch();
  add_tables();
  const auto place = [&](ValueId v) { return memory.places[static_cast<size_t>(v)]; };
  memory = plan_memory(program, options.passes.in_place);
  verify(program, memory);
  for (Op& op : program.step)
    if (op.def == &ops::flatten || op.def == &ops::flatten_backward)
      op.view = place(op.in[0]).group == place(op.out[0]).group;
}

void CompiledPlan::belong_to(const Params& params) {
  if (options.optimizer != nullptr && &options.optimizer->params() != &params)
    throw UsageError("the optimizer of a plan belongs to other Params");
  parameter_bytes = params.bytes_with_copy(options.dtype);
  optimizer_bytes = options.optimizer != nullptr ? options.optimizer->bytes() : 0;
}

void CompiledPlan::fuse_batch_norms(ConvProvider& convolutions) {
  const Fusions fusions{convolutions, options.compose_fusions};
  const Passes& on = options.passes;
  if (on.pool) fuse_bn_pool(program);
  if (on.statistics) fuse_statistics(program, fusions);
  if (on.prologue) fuse_prologues(program, fusions);
  if (on.dgrad) fuse_dgrad(program, fusions);
  if (on.block_end) fuse_block_ends(program);
  if (on.sweeps) fuse_sweeps(program);
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

}  // namespace convolt
