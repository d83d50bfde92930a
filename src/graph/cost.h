// What a plan's ops cost, counted from shapes: the bytes that kernels read and write, floating-point operations,
// launches, and the least time they can take on a device of known speed.
#pragma once

#include "conv/described_device.h"
#include "graph/compiled_plan.h"

namespace convolt {

struct OpCost {
  int64_t launches = 1;
  int64_t bytes = 0;  // each operand once for each launch that sweeps over it, and only what is touched of it
  int64_t flops = 0;  // multiply-adds times two; only of convolutions and matrix products
};
OpCost cost_of(const Op& op, const Program& program);

// For OpDef::bytes. All these values once; one that is there twice counts twice.
int64_t bytes_of(const std::vector<ValueId>& values, const Program& program);
// How many of `in` rows or columns the windows of a convolution or pool reach at all.
int64_t touched(int64_t in, int64_t out, int kernel, int stride, int dilation, int before);

// max(bytes / copy, flops / product rate), in seconds.
double time_bound(const OpCost& cost, const DeviceRates& rates, DType dtype, bool tf32);

// Sums over the step.
struct PlanCost {
  OpCost total{.launches = 0};
  int64_t saved_for_backward_bytes = 0;  // alive in the slab while the loss is computed, and read after it
  double time_bound = 0;                 // seconds, the kernels one after the other; 0 without rates
};
PlanCost cost_of(const CompiledPlan& plan, const DeviceRates* rates);

}  // namespace convolt
