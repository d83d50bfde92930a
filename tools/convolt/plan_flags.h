// The flags of a plan that no data set stands behind: which network, of which sizes, on which device.
#pragma once

#include "flags.h"

namespace convolt::cli {

struct PlanFlags {
  DeviceFlags device;
  std::string model, checkpoint;
  int64_t classes = 0;
  int batch = 1, size = 0, channels = 0;
  MemoryFlags memory;
  bool training = false;

  void add(FlagSet& flags);
  // The network and, in `card`, what it is built for. Throws UsageError without exactly one of --model and
  // --checkpoint.
  ModelInfo network(ModelCard& card) const;
  // All but the optimizer.
  PlanOptions options() const;
};

}  // namespace convolt::cli
