// From a graph to a program: forward ops, loss, gradient, optimizer. Passes and the choice of kernels come between and
// after.
#pragma once

#include "convolt/plan.h"
#include "graph/program.h"

namespace convolt {

class Autotuner;

// Forward ops of the step, and what `prepare` must compute before them.
Program lower(const Graph& graph, const PlanOptions& options);
// The 16-bit copy in Params of one of its f32 values, which the optimizer refreshes.
ValueId low_copy(Program& program, ValueId full, DType dtype, const std::string& layer);
// Appends the loss, and for training the backward ops and the optimizer's update.
void lower_training(Program& program, const PlanOptions& options);
// Gives each convolution and linear layer its kernel, and the packing ops that it wants; with `compose`, fused ones for
// which there is none become composed of plain ones. Throws DeviceError naming the layer for which the library has
// none.
void choose_kernels(Program& program, Autotuner& tuner, bool training, bool compose = false);

// Passes; each logs what it did in program.pass_log.
void fold_batch_norm(Program& program);
void fuse(Program& program, ConvProvider& provider, bool training);
void remove_dead_code(Program& program);
// Of training steps, gradients included (passes/fusion.h).
struct Fusions;
void fuse_statistics(Program& program, const Fusions& fusions);
void fuse_prologues(Program& program, const Fusions& fusions);
void fuse_dgrad(Program& program, const Fusions& fusions);
void fuse_dgrad_joins(Program& program, const Fusions& fusions);  // after the ends of blocks
void fuse_bn_pool(Program& program);
void fuse_block_ends(Program& program);
void fuse_sweeps(Program& program);
void fuse_linear(Program& program, const Fusions& fusions);
// Of all plans.
void lay_out_stem(Program& program, const Fusions& fusions, bool training);

}  // namespace convolt
