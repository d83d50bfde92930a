// What train() refuses before it begins.
#pragma once

#include <string>

#include "convolt/trainer.h"

namespace convolt {

// Options out of range, and a card that says other classes or channels than the graph: UsageError.
void check_training(const TrainOptions& o, const Graph& graph, const ModelCard& card);
// Data whose classes are not those of a checkpoint to go on from, in its order: DataError. `card` tells those of the
// data.
void check_classes(const std::string& checkpoint, const ModelCard& card);

}  // namespace convolt
