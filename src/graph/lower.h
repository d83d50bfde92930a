// From a graph to a program: forward ops, loss, gradient, optimizer. Passes and the choice of kernels come between and
// after.
#pragma once

#include "convolt/plan.h"
#include "graph/program.h"

namespace convolt {

class Autotuner;

// Forward ops of the step, and what `prepare` must compute before them.
Program lower(const Graph& graph, const PlanOptions& options);
// Appends the loss, and for training the backward ops and the optimizer's update.
void lower_training(Program& program, const PlanOptions& options);
// Gives each convolution and linear layer its kernel, and the packing ops that it wants. Throws DeviceError naming the
// layer for which there is none.
void choose_kernels(Program& program, Autotuner& tuner, bool training);

// Passes; each logs what it did in program.pass_log.
void fold_batch_norm(Program& program);
void fuse(Program& program, ConvProvider& provider, bool training);
void remove_dead_code(Program& program);

}  // namespace convolt
