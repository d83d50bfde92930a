// A training of the small network on the small data set, whole or in parts.
#pragma once

#include <gtest/gtest.h>

#include <map>

#include "support/device.h"
#include "support/temp_folder.h"
#include "train/made_set.h"

namespace convolt::test {

struct Trial {
  Graph graph;
  std::unique_ptr<Params> params;
  explicit Trial(uint64_t seed = 3, void (*network)(Graph&) = made_network) {
    network(graph);
    params = std::make_unique<Params>(context_of(Device::cpu()), graph, seed);
  }
  TrainResult train(const Dataset& data, const Dataset* validation, const TrainOptions& o,
                    const TrainObserver& observer = {}, const std::atomic<int>* interrupt = nullptr) {
    return convolt::train(graph, *params, data, validation, made_card(), o, observer, interrupt);
  }
};

// The files of a folder, by name, with their bytes.
inline std::map<std::string, std::string> files_of(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.is_regular_file()) files[entry.path().filename()] = contents(entry.path());
  return files;
}

// Interrupts a training like `whole`, which has run, at `stop` or soon after; resumed, it must end after `steps` with
// the same files. Of the network that `network` describes.
inline void expect_same_bits_after(int64_t stop, const TrainOptions& whole, const TempFolder& folder,
                                   const MadeSet& data, const MadeSet& validation, int64_t steps = 15,
                                   void (*network)(Graph&) = made_network) {
  TrainOptions part = whole;
  part.output_dir = folder.path("part" + std::to_string(stop));
  part.checkpoint_every = 1;
  std::atomic<int> interrupt{0};
  TrainObserver observer;
  // Interrupted when the reading of that step arrives, wherever the training has got to by then.
  observer.progress = [&](const TrainProgress& p) {
    if (p.step >= stop) interrupt = 2;
  };
  const TrainResult first = Trial(3, network).train(data, &validation, part, observer, &interrupt);
  ASSERT_TRUE(first.interrupted);
  ASSERT_LT(first.steps, steps);
  part.resume = part.output_dir + "/last.safetensors";
  const TrainResult second = Trial(3, network).train(data, &validation, part);
  EXPECT_EQ(second.steps, steps);
  const auto expected = files_of(whole.output_dir), found = files_of(part.output_dir);
  EXPECT_EQ(found.size(), expected.size());
  for (const auto& [name, bytes] : expected) {
    ASSERT_TRUE(found.contains(name)) << name;
    if (name == "times.jsonl") continue;  // how long things took
    EXPECT_TRUE(found.at(name) == bytes) << name << " after a stop at step " << first.steps;
  }
}

}  // namespace convolt::test
