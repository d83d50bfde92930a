// Which checkpoints a training has on disk, and which epoch is its best.
#pragma once

#include <string>

#include "convolt/trainer.h"

namespace convolt {

// Writes last.safetensors, best.safetensors and the checkpoints of the best epochs into a folder. At any moment the
// folder holds what the last.safetensors in it speaks of: new files are there before it, old ones go after it. Its
// memory is part of TrainingState, so that a resumed training decides alike.
class CheckpointKeeper {
public:
  // Reads folder, metric, `keep` and `early_stop` from the options; without output_dir it only decides. Throws
  // UsageError where something needs validation and there is none, or the state was made with another metric. State
  // and card must outlive it.
  CheckpointKeeper(const TrainOptions& options, const ModelCard& card, TrainingState& state, bool validates);

  // Takes in an epoch: sets its `best` and moves the state on.
  void judge(EpochSummary& epoch);
  // Writes what an epoch deserves that judge() has seen. `trained`: the weights that were validated.
  void save_judged(const EpochSummary& epoch, const Params& trained) const;
  // Writes last.safetensors, then removes the checkpoints that are no longer among the best.
  void save_last(const Params& params, const Optimizer& optimizer) const;
  // A training that goes on from another folder's checkpoint copies the best.safetensors beside that; where there is
  // none, the next epoch is the best so far.
  void take_over_best() const;
  // Removes what killed processes left in the folder, which no other training writes into.
  void clear_leftovers() const;
  // Removes what an earlier training left in the folder of one that begins there.
  void forget() const;
  // early_stop epochs have gone by without a better one.
  bool out_of_patience() const;

  std::string path(const std::string& file) const;

private:
  double value_of(const EvalResult& result) const;
  bool better(double a, double b) const;  // false for NaN
  void keep(const KeptCheckpoint& candidate);
  void remove_surplus() const;

  const TrainOptions& options_;
  const ModelCard& card_;
  TrainingState& state_;
};

}  // namespace convolt
