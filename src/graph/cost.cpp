#include "graph/cost.h"

#include <algorithm>
#include <set>

namespace convolt {

int64_t bytes_of(const std::vector<ValueId>& values, const Program& p) {
  int64_t n = 0;
  for (const ValueId v : values)
    if (v != kNoValue) n += p[v].bytes();
  return n;
}

int64_t touched(int64_t in, int64_t out, int kernel, int stride, int dilation, int before) {
  std::vector<bool> read(static_cast<size_t>(in), false);
  for (int64_t o = 0; o < out; ++o)
    for (int k = 0; k < kernel; ++k)
      if (const int64_t i = o * stride + int64_t{k} * dilation - before; i >= 0 && i < in)
        read[static_cast<size_t>(i)] = true;
  return std::count(read.begin(), read.end(), true);
}

OpCost cost_of(const Op& op, const Program& p) {
  OpCost cost;
  if (op.def->launches != nullptr) cost.launches = op.def->launches(op);
  if (op.def->flops != nullptr) cost.flops = op.def->flops(op, p);
  if (op.def->bytes != nullptr) {
    cost.bytes = op.def->bytes(op, p);
  } else {  // add(x, x) reads x once
    const std::set<ValueId> inputs(op.in.begin(), op.in.end());
    cost.bytes = bytes_of({inputs.begin(), inputs.end()}, p) + bytes_of(op.out, p);
  }
  // Partial results are written once and read once. What a library does with its workspace is not known.
  if (op.scratch != kNoValue && op.kernel == nullptr) cost.bytes += 2 * p[op.scratch].bytes();
  return cost;
}

double time_bound(const OpCost& cost, const DeviceRates& rates, DType dtype, bool tf32) {
  const double product = dtype == DType::f16    ? rates.f16
                         : dtype == DType::bf16 ? rates.bf16
                         : tf32                 ? rates.tf32
                                                : rates.f32;
  return std::max(static_cast<double>(cost.bytes) / rates.copy, static_cast<double>(cost.flops) / product);
}

PlanCost cost_of(const CompiledPlan& plan, const DeviceRates* rates) {
  PlanCost sum;
  const Program& p = plan.program;
  int loss = -1;
  for (size_t i = 0; i < p.step.size(); ++i) {
    const OpCost cost = cost_of(p.step[i], p);
    sum.total.launches += cost.launches;
    sum.total.bytes += cost.bytes;
    sum.total.flops += cost.flops;
    if (rates != nullptr) sum.time_bound += time_bound(cost, *rates, plan.options.dtype, plan.options.tf32);
    if (p.step[i].def == &ops::loss) loss = static_cast<int>(i);
  }
  for (size_t v = 0; v < p.values.size(); ++v) {
    const MemoryPlan::Place& place = plan.memory.places[v];
    if (place.offset >= 0 && !p.values[v].persistent && place.first < loss && loss < place.last)
      sum.saved_for_backward_bytes += p.values[v].bytes();
  }
  return sum;
}

}  // namespace convolt
