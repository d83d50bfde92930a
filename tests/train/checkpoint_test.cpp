#include "convolt/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "io/safetensors.h"
#include "support/device.h"
#include "support/message_of.h"
#include "support/temp_folder.h"
#include "train/made_set.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

struct Net {
  Graph graph;
  std::unique_ptr<Params> params;
  explicit Net(uint64_t seed) {
    made_network(graph);
    params = std::make_unique<Params>(context_of(Device::cpu()), graph, seed);
  }
};

TEST(Checkpoint, KeepsWeightsMomentsStateAndCard) {
  const TempFolder folder;
  const std::string path = folder.path("x.safetensors");
  Net a(1);
  Optimizer sgd(*a.params);
  const int fc = a.params->find("fc.weight");
  std::vector<float> moment(static_cast<size_t>(a.params->tensor(fc).elements()));
  for (size_t i = 0; i < moment.size(); ++i) moment[i] = static_cast<float>(i);
  sgd.set_moment_values(0, fc, moment);
  a.params->batches_tracked = 17;
  TrainingState state;
  state.step = 42;
  state.best_top1 = 0.125;
  state.batches_tracked = 17;
  state.meters = {0.1, 2, 3, 4};
  state.device = "somewhere";
  ModelCard card = made_card();
  card.preprocessing.std = {0.1F, 0.2F, 0.3F};
  save_checkpoint(path, *a.params, card, &sgd, &state);

  Net b(2);
  Optimizer other(*b.params);
  const TrainingState read = load_training(path, *b.params, other);
  for (size_t i = 0; i < a.params->specs().size(); ++i)
    EXPECT_EQ(a.params->values(static_cast<int>(i)), b.params->values(static_cast<int>(i)))
        << a.params->specs()[i].name;
  EXPECT_EQ(other.moment_values(0, fc), moment);
  EXPECT_EQ(b.params->batches_tracked, 17);
  EXPECT_EQ(read.step, 42);
  EXPECT_EQ(read.best_top1, 0.125);
  EXPECT_EQ(read.meters.loss, 0.1);
  EXPECT_EQ(read.device, "somewhere");
  const ModelCard found = read_card(path);
  EXPECT_EQ(found.class_names, card.class_names);
  EXPECT_EQ(found.preprocessing.std, card.preprocessing.std);
  EXPECT_EQ(found.preprocessing.channels, 1);
}

// Files hold OIHW convolutions and linear layers as torch flattens NCHW pictures.
TEST(Checkpoint, FilesUseTorchsLayout) {
  const TempFolder folder;
  const std::string path = folder.path("x.safetensors");
  Net net(1);
  save_checkpoint(path, *net.params, made_card());
  const SafeTensors file = SafeTensors::read(path);
  EXPECT_EQ(file.find("conv2.weight")->shape, (std::vector<int64_t>{8, 8, 3, 3}));
  EXPECT_EQ(file.find("fc.weight")->shape, (std::vector<int64_t>{3, 8 * 6 * 6}));
  EXPECT_EQ(file.find("bn1.num_batches_tracked")->dtype, "I64");
  EXPECT_EQ(file.find("optim.momentum.fc.weight"), nullptr);

  const int conv = net.params->find("conv2.weight");
  const std::vector<float> in_file = file.find("conv2.weight")->to_floats();
  std::vector<float> in_memory(in_file.size());
  context_of(Device::cpu())
      .compute()
      .copy(in_memory.data(), net.params->tensor(conv).data, net.params->tensor(conv).bytes());
  context_of(Device::cpu()).compute().synchronize();
  // [o=2][i=5][h=1][w=2] of the file is [2][1][2][5] in memory.
  EXPECT_EQ(in_file[((2 * 8 + 5) * 3 + 1) * 3 + 2], in_memory[((2 * 3 + 1) * 3 + 2) * 8 + 5]);
}

// Only of batch norms the batches are counted, whatever other layers are called.
TEST(Checkpoint, NamesOfLayersAreFree) {
  Graph g;
  Value x = g.input("image", {4, 4, 3});
  for (const char* name : {"running_var1", "running_var2"}) x = conv2d(x, 2, {.name = name, .kernel = 1});
  g.output(linear(global_avg_pool(x), 3, {.name = "fc"}));
  Params params(context_of(Device::cpu()), g, 1);
  const TempFolder folder;
  const std::string path = folder.path("x.safetensors");
  save_checkpoint(path, params, made_card());
  EXPECT_EQ(SafeTensors::read(path).tensors().size(), 4U);
}

// What options allow to differ is reported; what fits is read.
TEST(Checkpoint, LoadsWhatFits) {
  const TempFolder folder;
  const std::string path = folder.path("x.safetensors");
  Context& context = context_of(Device::cpu());
  const auto params_of = [&](const char* model, const ModelOptions& options) {
    Graph graph;
    build_model(graph, model, options);
    return std::make_unique<Params>(context, graph, static_cast<uint64_t>(options.classes));
  };
  const auto source = params_of("resnet20", {.classes = 4});
  save_checkpoint(path, *source, made_card());

  const auto tuned = params_of("resnet20", {.classes = 6});
  const int head = tuned->find("linear.weight"), stem = tuned->find("conv1.weight");
  const std::vector<float> initial = tuned->values(head);
  EXPECT_THAT(load_weights(path, *tuned, {.finetune = true}).kept,
              testing::ElementsAre("linear.weight", "linear.bias"));
  EXPECT_EQ(tuned->values(head), initial);
  EXPECT_EQ(tuned->values(stem), source->values(stem));
  const auto same = params_of("resnet20", {.classes = 4});
  EXPECT_TRUE(load_weights(path, *same, {.finetune = true}).kept.empty());
  EXPECT_EQ(same->values(head), source->values(head));

  const auto deeper = params_of("resnet32", {.classes = 4});
  const LoadReport report = load_weights(path, *deeper, {.strict = false});
  EXPECT_THAT(report.missing, testing::Contains("layer1.3.conv1.weight"));
  EXPECT_TRUE(report.unexpected.empty());
  EXPECT_EQ(deeper->values(deeper->find("conv1.weight")), source->values(stem));
  const auto shallower = params_of("resnet20", {.classes = 4});
  save_checkpoint(path, *deeper, made_card());
  EXPECT_THAT(load_weights(path, *shallower, {.strict = false}).unexpected,
              testing::Contains("layer3.4.bn2.running_var"));

  const auto grey = params_of("resnet32", {.classes = 4, .channels = 1});
  EXPECT_THAT(message_of<FormatError>([&] { load_weights(path, *grey); }),
              HasSubstr("'conv1.weight' takes pictures of 3 channels, but these have 1"));
  const auto other = params_of("mobilenet_v2", {.classes = 4});
  EXPECT_THAT(message_of<FormatError>([&] { load_weights(path, *other, {.strict = false}); }),
              HasSubstr("no name agrees"));
}

TEST(Checkpoint, ComplainsInOneSentence) {
  const TempFolder folder;
  const std::string path = folder.path("x.safetensors");
  Net net(1);
  save_checkpoint(path, *net.params, made_card());

  Graph g;
  Value x = g.input("image", {12, 12, 1});
  x = relu(batch_norm(conv2d(x, 4, {.name = "conv1", .padding = 1}), {.name = "norm"}));
  g.output(linear(global_avg_pool(x), 3, {.name = "fc"}));
  Params params(context_of(Device::cpu()), g, 1);
  const std::string fit = message_of<FormatError>([&] { load_weights(path, params); });
  EXPECT_THAT(fit, HasSubstr("missing norm.weight"));
  EXPECT_THAT(fit, HasSubstr("unexpected "));
  EXPECT_THAT(fit, HasSubstr("conv1.weight [8, 1, 3, 3] for [4, 1, 3, 3]"));

  Optimizer sgd(*net.params);
  EXPECT_THAT(message_of<FormatError>([&] { load_training(path, *net.params, sgd); }),
              HasSubstr("resume from last.safetensors"));
  const std::vector<float> one{1};
  write_safetensors(path, {{"a", "F32", {1}, std::as_bytes(std::span(one))}});
  EXPECT_THAT(message_of<FormatError>([&] { read_card(path); }), HasSubstr("not a Convolt checkpoint"));
  write_safetensors(path, {{"a", "F32", {1}, std::as_bytes(std::span(one))}}, {{"convolt.card", "{\"model\": 3}"}});
  EXPECT_THAT(message_of<FormatError>([&] { read_card(path); }), HasSubstr("convolt.card"));
}

}  // namespace
}  // namespace convolt::test
