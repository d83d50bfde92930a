#include "plan_flags.h"

namespace convolt::cli {

void PlanFlags::add(FlagSet& flags) {
  flags.option("--model", model, "name of a network, or a network file: FILE.json");
  flags.option("--checkpoint", checkpoint, "the network of a checkpoint").excludes(flags.find("--model"));
  flags.option("--num-classes", classes, "outputs [the model's]").check(at_least(1)).hide_default();
  flags.option("-b,--batch-size", batch, "pictures in a batch").check(at_least(1));
  flags.option("--size", size, "side of the pictures [the model's]").check(at_least(1)).hide_default();
  flags.option("--channels", channels, "channels of the pictures, 1 or 3 [the model's]")
      .check(one_of({"1", "3"}))
      .hide_default();
  memory.add(flags, "any number");
  flags.toggle("--training", training, "the plan of a training step instead of evaluation");
}

ModelInfo PlanFlags::network(ModelCard& card) const {
  if (model.empty() == checkpoint.empty()) throw UsageError("give either --model NAME or --checkpoint FILE");
  if (!checkpoint.empty()) {
    if (classes > 0 || channels > 0)
      throw UsageError("--num-classes and --channels are for --model: a checkpoint says its own");
    card = read_card(checkpoint);
    if (size > 0) card.height = card.width = size;
    return model_of(card);
  }
  const ModelInfo info = find_model(model);
  card.model = model;
  card.classes = classes > 0 ? classes : info.classes;
  card.channels = channels > 0 ? channels : info.channels;
  card.height = card.width = size > 0 ? size : info.size;
  return info;
}

PlanOptions PlanFlags::options() const {
  PlanOptions o;
  o.batch = batch;
  o.dtype = device.type();
  o.tf32 = device.tf32();
  o.kernels = device.kernels.options();
  o.training = training;
  o.height = o.width = size;
  o.memory_budget = memory.bytes();
  return o;
}

}  // namespace convolt::cli
