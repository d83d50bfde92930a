// A graph compiled with the kernels that a tuner chooses: everything about a plan that needs no device and no memory.
#pragma once

#include <limits>

#include "convolt/plan.h"
#include "graph/lower.h"
#include "graph/memory_plan.h"
#include "graph/op.h"
#include "graph/optimizer_tables.h"

namespace convolt {

struct CompiledPlan {
  // `free_bytes`: of the device, for the slab. Throws UsageError, ShapeError or DeviceError for what cannot be done,
  // of Params or an optimizer that belong to others too, and OutOfMemoryError where the slab fits neither in them nor
  // in the budget. The graph need not outlive it.
  CompiledPlan(const Graph& graph, const Params& params, const PlanOptions& options, Autotuner& tuner,
               int64_t free_bytes = std::numeric_limits<int64_t>::max());

  PlanOptions options;
  bool batch_statistics;  // whether a step's rows make some
  Program program;
  MemoryPlan memory;
  KernelChoices kernels;
  int height = 0, width = 0;
  std::string provider;
  int64_t parameter_bytes = 0, optimizer_bytes = 0;  // asked of the device besides the slab

  // Of the optimizer's ops; the device copies are values of the slab.
  OptimizerTables tables;
  ValueId device_tensors = kNoValue, device_tiles = kNoValue, device_pieces = kNoValue;
  ValueId device_gram_tiles = kNoValue, device_matrix_tiles = kNoValue;

  // Staging of run(images, labels, ...): in the slab of plans without an augment op.
  ValueId images = kNoValue, labels = kNoValue, weights = kNoValue;

private:
  void fuse_batch_norms(Autotuner& tuner);
  void add_scratch();
  void add_tables();
  void fit(int64_t free_bytes, const DeviceRates& rates);
  // How many ops run again.
  int recompute_within(int64_t limit, const DeviceRates& rates);
};

}  // namespace convolt
