// The flags of a training that say what it leaves behind, and what it does when something goes wrong.
#pragma once

#include <string>

#include "convolt/trainer.h"
#include "flag_set.h"

namespace convolt::cli {

struct RunFlags {
  std::string output_dir, resume, profile;
  bool overwrite = false, tensorboard = false;
  int64_t checkpoint_every = 0;
  int log_every = 10, keep = 0, early_stop = 0;
  std::string best_metric = "top1", nan_policy = "stop", bad_images = "replace", max_bad = "100%";

  void add(FlagSet& flags);
  // The checkpoint to go on from, empty for none. Throws UsageError where the folder would be written over.
  std::string resume_path() const;
  void apply_to(TrainOptions& o) const;
};

}  // namespace convolt::cli
