// What an embedder may get wrong is told in a sentence, by the right exception, before anything is computed of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "convolt/convolt.h"
#include "support/device.h"
#include "support/message_of.h"
#include "support/temp_folder.h"
#include "train/made_set.h"

namespace convolt::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Without batch norm, 8x8 grey pictures, three classes.
void plain_network(Graph& g, int64_t classes = 3, bool norm = false) {
  Value x = conv2d(g.input("image", {8, 8, 1}), 4, {.name = "conv1", .padding = 1});
  if (norm) x = batch_norm(x, {.name = "bn1"});
  g.output(linear(global_avg_pool(relu(x)), classes, {.name = "fc"}));
}

class Misuse : public testing::Test {
protected:
  Misuse() {
    plain_network(graph_);
    params_.emplace(context_, graph_, 5);
  }
  static ModelCard card() {
    ModelCard c;
    c.preprocessing = {.height = 8, .width = 8, .channels = 1, .geometry = AugmentOptions::Geometry::none};
    return c;
  }
  static std::vector<float> pictures(size_t count, float value = 0.25F) {
    return std::vector<float>(count * 64, value);
  }

  Context& context_ = context_of(Device::cpu());
  Graph graph_;
  std::optional<Params> params_;
};

TEST_F(Misuse, StepsOfHostMemory) {
  Plan plan(graph_, *params_, {.batch = 2, .training = true});
  const std::vector<float> images = pictures(2);
  const std::vector<int32_t> good{0, 2}, bad{1, 3};
  EXPECT_THAT(message_of<UsageError>([&] { plan.logits(); }), HasSubstr("run no step yet"));
  EXPECT_THAT(message_of<UsageError>([&] { plan.gradient(0); }), HasSubstr("run no step yet"));
  EXPECT_THAT(message_of<UsageError>([&] { plan.run(nullptr, good.data(), 2); }), HasSubstr("needs pictures"));
  EXPECT_THAT(message_of<UsageError>([&] { plan.run(images.data(), nullptr, 2); }), HasSubstr("needs labels"));
  EXPECT_THAT(message_of<UsageError>([&] { plan.run(images.data(), bad.data(), 2); }),
              HasSubstr("row 1, whose label is 3 (the network has 3 classes)"));
  for (const float rate : {kNan, -0.1F, std::numeric_limits<float>::infinity()})
    EXPECT_THAT(message_of<UsageError>([&] { plan.run(images.data(), good.data(), 2, 0, rate); }),
                HasSubstr("learning rate"));
  plan.run(images.data(), good.data(), 2);
  EXPECT_EQ(plan.logits().size(), 6U);
  EXPECT_THAT(message_of<UsageError>([&] { plan.gradient(99); }), HasSubstr("no parameter 99"));
}

TEST_F(Misuse, BatchNormsSeeNoRowsThatAreNotThere) {
  Graph graph;
  plain_network(graph, 3, /*norm=*/true);
  Params params(context_, graph, 5);
  Plan training(graph, params, {.batch = 4, .training = true}), evaluation(graph, params, {.batch = 4});
  const std::vector<float> images = pictures(4);
  const std::vector<int32_t> labels{0, 1, 2, 0};
  EXPECT_THAT(message_of<UsageError>([&] { training.run(images.data(), labels.data(), 3); }),
              AllOf(HasSubstr("batch 4 got 3 rows"), HasSubstr("batch norms")));
  evaluation.run(images.data(), labels.data(), 3);
  training.run(images.data(), labels.data(), 4);
}

TEST_F(Misuse, StepsOfDeviceMemory) {
  Plan plain(graph_, *params_, {.batch = 2, .training = true});
  EXPECT_THAT(message_of<UsageError>([&] { plain.run(StepInput{}); }), HasSubstr("no images"));
  Plan dense(graph_, *params_, {.batch = 2, .training = true, .loss = {.target = LossOptions::Target::dense}});
  StepInput input;
  const std::vector<float> images = pictures(2), weights{1, 1};
  input.images = images.data();
  Plan evaluation(graph_, *params_, {.batch = 2});
  EXPECT_THAT(message_of<UsageError>([&] { evaluation.run(input); }), HasSubstr("no weights"));
  input.weights = weights.data();
  EXPECT_THAT(message_of<UsageError>([&] { evaluation.run(input); }), HasSubstr("no labels"));
  EXPECT_THAT(message_of<UsageError>([&] { dense.run(input); }), HasSubstr("no targets"));
  EXPECT_THAT(message_of<UsageError>([&] { plain.find_non_finite(StepInput{}); }), HasSubstr("no images"));
  for (const float bad : {-1.F, static_cast<float>(kNan)}) {
    StepInput numbers = input;
    numbers.weight_sum = bad;
    EXPECT_THAT(message_of<UsageError>([&] { plain.run(numbers); }), HasSubstr("sum of weights"));
    numbers = input;
    numbers.own_rates[1] = bad;
    EXPECT_THAT(message_of<UsageError>([&] { plain.run(numbers); }), HasSubstr("own learning rate of a group"));
  }

  const MadeSet data(20);
  Graph graph;
  made_network(graph);
  Params params(context_, graph, 1);
  LoaderOptions loading;
  loading.batch = 4;
  loading.augment = made_pictures();
  const auto loader = Loader::create(context_, data, loading);
  Batch batch;
  loader->next(batch);
  for (const int rows : {2, 8}) {
    Plan other(graph, params, {.batch = rows, .augment = made_pictures()});
    EXPECT_THAT(message_of<UsageError>([&] { other.run(input_of(batch)); }),
                HasSubstr("a plan of batch " + std::to_string(rows) + " got a batch of 4 rows"));
  }
  loader->release(batch);
}

TEST_F(Misuse, AugmentationsThatMakeOtherPictures) {
  AugmentOptions pictures = card().preprocessing;
  pictures.hflip = 7;
  EXPECT_THAT(message_of<UsageError>([&] { Plan(graph_, *params_, {.augment = pictures}); }), HasSubstr("hflip"));
  pictures = card().preprocessing;
  pictures.height = 16;
  EXPECT_THAT(message_of<UsageError>([&] { Plan(graph_, *params_, {.augment = pictures}); }),
              HasSubstr("makes pictures of 16 x 8 x 1, but the plan reads 8 x 8 x 1"));
  EXPECT_THAT(message_of<UsageError>([&] { Plan(graph_, *params_, {.height = -5}); }), HasSubstr("-5 x 0"));
}

TEST_F(Misuse, ParamsOfAnotherGraph) {
  Graph more;
  plain_network(more, 300000);
  EXPECT_THAT(message_of<ShapeError>([&] { Plan(more, *params_, {}); }),
              AllOf(HasSubstr("'fc.weight' [300000, 4]"), HasSubstr("'fc.weight' [3, 4]")));
  Graph grown;
  plain_network(grown);
  Params early(context_, grown, 1);
  linear(Value{&grown, grown.output_layer()}, 5, {.name = "late"});
  EXPECT_THAT(message_of<ShapeError>([&] { Plan(grown, early, {}); }), HasSubstr("they have none"));
  Params others(context_, graph_, 6);
  const Plan lender(graph_, *params_, {});
  EXPECT_THAT(message_of<UsageError>([&] { Plan(graph_, others, {.in_slab_of = &lender}); }), HasSubstr("same Params"));
}

TEST_F(Misuse, IndicesThatNobodyHas) {
  Params& p = *params_;
  EXPECT_THAT(message_of<UsageError>([&] { p.set_values(p.find("typo"), {1}); }), HasSubstr("no parameter -1"));
  for (const int i : {-1, 4, 1000}) {
    EXPECT_THROW(p.values(i), UsageError) << i;
    EXPECT_THROW(p.tensor(i), UsageError) << i;
    EXPECT_THROW(p.to_file_layout(i, {}), UsageError) << i;
  }
  EXPECT_THROW(p.to_file_layout(0, {}), ShapeError);
  Optimizer sgd(p, {.momentum = 0.9F});
  EXPECT_THROW(sgd.settings(99), UsageError);
  EXPECT_THROW(sgd.moment(1, 0), UsageError);
  EXPECT_THROW(sgd.moment_values(0, -1), UsageError);
  EXPECT_THROW(Optimizer(p, {.kind = static_cast<OptimizerKind>(99)}), UsageError);
}

TEST_F(Misuse, ValuesThatNoLayerHasMade) {
  EXPECT_THROW(relu(Value{}), UsageError);
  EXPECT_THROW(concat({Value{}}), UsageError);
  EXPECT_THROW(static_cast<void>(Value{}.shape()), UsageError);
  EXPECT_THROW(static_cast<void>(Value{&graph_, 77}.shape()), UsageError);
  EXPECT_THROW(conv2d(Value{&graph_, 77}, 4), UsageError);
  EXPECT_THROW(activation(Value{&graph_, 0}, static_cast<Activation>(99)), UsageError);
  const Graph empty;
  Params none(context_, empty, 1);
  EXPECT_THROW(Plan(empty, none, {}), UsageError);
}

TEST_F(Misuse, NumbersOfLayers) {
  const auto layer = [&](auto add) {
    return message_of<ShapeError>([&] {
      Graph g;
      add(g.input("image", {4, 4, 3}));
    });
  };
  EXPECT_THAT(layer([](Value x) { batch_norm(x, {.eps = -1}); }), HasSubstr("eps must be at least 0"));
  EXPECT_THAT(layer([](Value x) { batch_norm(x, {.eps = kNan}); }), HasSubstr("eps must be at least 0"));
  EXPECT_THAT(layer([](Value x) { batch_norm(x, {.momentum = 7}); }), HasSubstr("momentum must be 0 to 1"));
  EXPECT_THAT(layer([](Value x) { group_norm(x, {.groups = 1, .eps = kNan}); }), HasSubstr("eps"));
  EXPECT_THAT(layer([](Value x) { layer_norm(x, {.eps = -1}); }), HasSubstr("eps"));
  EXPECT_THAT(layer([](Value x) { layer_scale(x, {.init = kNan}); }), HasSubstr("start as a number"));
  EXPECT_THAT(layer([](Value x) { conv2d(x, 4, {.init = {Init::Kind::normal, kNan}}); }), HasSubstr("not finite"));
}

TEST_F(Misuse, CardsThatDoNotFit) {
  EXPECT_THAT(message_of<UsageError>([&] { Predictor(graph_, *params_, ModelCard{}); }),
              HasSubstr("makes pictures of 3 channels, the network reads 1"));
  ModelCard c = card();
  c.preprocessing.geometry = AugmentOptions().geometry;
  EXPECT_THAT(message_of<UsageError>([&] { Predictor(graph_, *params_, c); }), HasSubstr("crops at random"));
  c = card();
  c.classes = 7;
  EXPECT_THAT(message_of<UsageError>([&] { Predictor(graph_, *params_, c); }), HasSubstr("7 classes"));
  c = card();
  c.class_names = {"a", "b", "c", "d"};
  EXPECT_THAT(message_of<UsageError>([&] { Predictor(graph_, *params_, c); }), HasSubstr("4 names for 3 classes"));
  EXPECT_EQ(Predictor(graph_, *params_, card()).card().classes, 3);
}

TEST_F(Misuse, PredictorsThatAreAskedWhileTheyAnswer) {
  Predictor predictor(graph_, *params_, card());
  const std::vector<RawSample> picture{{std::vector<uint8_t>(64), 8, 8, 1}};
  EXPECT_EQ(predictor.predict(picture).size(), 1U);
  const MadeSet data(1);
  EXPECT_THAT(message_of<UsageError>(
                  [&] { predictor.predict(data, [&](int64_t, const Prediction&) { predictor.predict(picture); }); }),
              HasSubstr("while it answers"));
  EXPECT_THAT(message_of<UsageError>([&] { predictor.predict(data, {}); }), HasSubstr("empty one"));
  EXPECT_EQ(predictor.predict(picture).size(), 1U) << "the turn is given back";
}

TEST_F(Misuse, CheckpointsThatWouldBeOfNoUse) {
  const TempFolder folder;
  const std::string path = folder.path("x.safetensors");
  EXPECT_THAT(message_of<UsageError>([&] { save_checkpoint(path, *params_, card()); }), HasSubstr("names no network"));
  const ModelCard whole = card_of(graph_, card().preprocessing, {"a", "caf\xe9"});
  const TrainingState state;
  EXPECT_THROW(save_checkpoint(path, *params_, whole, nullptr, &state), UsageError);
  Params others(context_, graph_, 2);
  Optimizer of_others(others, {});
  EXPECT_THAT(message_of<UsageError>([&] { save_checkpoint(path, *params_, whole, &of_others, &state); }),
              HasSubstr("belongs to other Params"));
  EXPECT_THAT(message_of<UsageError>([&] { load_training(path, *params_, of_others); }), HasSubstr("other Params"));
  std::vector<float> weights = params_->values(0);
  const std::vector<float> good = weights;
  weights[3] = kNan;
  params_->set_values(0, weights);
  EXPECT_EQ(params_->find_non_finite(), "conv1.weight");
  EXPECT_THAT(message_of<NonFiniteError>([&] { save_checkpoint(path, *params_, whole); }), HasSubstr("'conv1.weight'"));
  EXPECT_FALSE(std::filesystem::exists(path));

  params_->set_values(0, good);
  EXPECT_EQ(params_->find_non_finite(), "");
  save_checkpoint(path, *params_, whole);
  Predictor predictor(context_, path);  // a network of one's own comes back whole, names that are no UTF-8 too
  EXPECT_EQ(predictor.card().classes, 3);
  EXPECT_EQ(predictor.card().class_names[1], "caf\xef\xbf\xbd");
  const std::vector<RawSample> picture{{std::vector<uint8_t>(64, 90), 8, 8, 1}};
  EXPECT_EQ(predictor.predict(picture)[0].logits, Predictor(graph_, *params_, whole).predict(picture)[0].logits);
}

// As another program may write them: one value among the weights made NaN in the file.
TEST_F(Misuse, WeightsThatAreNotFinite) {
  const TempFolder folder;
  const std::string path = folder.path("x.safetensors");
  std::vector<float> marked(36, 0.0F);
  marked[7] = 123456.75F;
  params_->set_values(0, marked);
  save_checkpoint(path, *params_, card_of(graph_, card().preprocessing));
  std::string file = contents(path);
  const float from = marked[7];
  const size_t at = file.find(std::string(reinterpret_cast<const char*>(&from), 4));
  ASSERT_NE(at, std::string::npos);
  file.replace(at, 4, reinterpret_cast<const char*>(&kNan), 4);
  put_contents(path, file);
  Params loaded(context_, graph_, 8);
  const std::vector<float> before = loaded.values(0);
  EXPECT_THAT(message_of<FormatError>([&] { load_weights(path, loaded); }), HasSubstr("'conv1.weight' are not finite"));
  EXPECT_EQ(loaded.values(0), before);
}

TEST_F(Misuse, PlansAndPredictorsMove) {
  std::vector<Plan> plans;
  for (const int batch : {1, 2}) plans.emplace_back(graph_, *params_, PlanOptions{.batch = batch});
  const std::vector<float> images = pictures(2);
  for (Plan& plan : plans) plan.run(images.data(), nullptr, 1);
  const std::vector<float> two = plans[1].logits();
  EXPECT_EQ(plans[0].logits(), std::vector<float>(two.begin(), two.begin() + 3));
  plans[0] = std::move(plans[1]);
  EXPECT_EQ(plans[0].logits(), two);

  const std::vector<RawSample> picture{{std::vector<uint8_t>(64, 90), 8, 8, 1}};
  Predictor first(graph_, *params_, card());
  const std::vector<float> logits = first.predict(picture)[0].logits;
  Predictor second = std::move(first);
  EXPECT_EQ(second.predict(picture)[0].logits, logits);
}

// What a layer in the middle makes, of a network with weights.
TEST_F(Misuse, FeaturesOfALayer) {
  Graph whole, features;
  plain_network(whole);
  plain_network(features);
  EXPECT_THAT(message_of<UsageError>([&] { features.find("relu9"); }),
              HasSubstr("no layer 'relu9'; the last one is 'fc'"));
  features.output(global_avg_pool(features.find("relu1")));
  Plan logits(whole, *params_, {}), pooled(features, *params_, {});
  std::vector<float> image(64);
  for (size_t i = 0; i < image.size(); ++i) image[i] = static_cast<float>(i % 7) - 3;
  logits.run(image.data(), nullptr, 1);
  pooled.run(image.data(), nullptr, 1);
  const std::vector<float> x = pooled.logits(), w = params_->values(params_->find("fc.weight")),
                           bias = params_->values(params_->find("fc.bias"));
  ASSERT_EQ(x.size(), 4U);
  for (size_t k = 0; k < 3; ++k)
    EXPECT_NEAR(logits.logits()[k],
                bias[k] + w[4 * k] * x[0] + w[4 * k + 1] * x[1] + w[4 * k + 2] * x[2] + w[4 * k + 3] * x[3], 1e-5);
}

TEST_F(Misuse, ConfusionMatrices) {
  using Labels = std::vector<int32_t>;
  EXPECT_EQ(confusion_matrix(Labels{0, -1, 1}, Labels{1, 9, 1}, 2), (std::vector<int64_t>{0, 1, 0, 1}));
  EXPECT_THAT(message_of<UsageError>([] { confusion_matrix(Labels{0, 1}, Labels{0, 30000}, 2); }), HasSubstr("30000"));
  EXPECT_THROW(confusion_matrix(Labels{0, 1}, Labels{0, -1}, 2), UsageError);
  EXPECT_THROW(confusion_matrix(Labels{0, 5}, Labels{0, 1}, 2), UsageError);
  EXPECT_THROW(confusion_matrix(Labels{0, 1}, Labels{0}, 2), UsageError);
  EXPECT_THROW(confusion_matrix(Labels{}, Labels{}, 0), UsageError);
  EXPECT_THROW(confusion_matrix(Labels{}, Labels{}, int64_t{1} << 32), UsageError);
}

TEST_F(Misuse, ThreadsThatNoMachineHas) {
  EXPECT_THROW(Context::create({Device::cpu(), 100000}), UsageError);
  EXPECT_THROW(Context::create({Device::cpu(), -1}), UsageError);
  EXPECT_THROW(Context::create(Device{Device::Type::cpu, 7}), UsageError);
  EXPECT_THROW(Predictor(graph_, *params_, card(), {.workers = 1000000}), UsageError);
}

TEST_F(Misuse, OptionsOfTrainings) {
  const MadeSet data(32);
  Graph graph;
  made_network(graph);
  Params params(context_, graph, 1);
  const auto refusal = [&](auto change) {
    TrainOptions o = made_options();
    change(o);
    return message_of<UsageError>([&] { train(graph, params, data, nullptr, made_card(), o); });
  };
  EXPECT_THAT(refusal([](TrainOptions& o) { o.schedule.base = -1; }), HasSubstr("schedule.base (--lr)"));
  EXPECT_THAT(refusal([](TrainOptions& o) { o.schedule.gamma = kNan; }), HasSubstr("schedule.gamma"));
  EXPECT_THAT(refusal([](TrainOptions& o) { o.steps = -3; }), HasSubstr("steps"));
  EXPECT_THAT(refusal([](TrainOptions& o) { o.warmup_epochs = -1; }), HasSubstr("warmup_epochs"));
  EXPECT_THAT(refusal([](TrainOptions& o) { o.checkpoint_every = -1; }), HasSubstr("checkpoint_every"));
  EXPECT_THAT(refusal([](TrainOptions& o) { o.workers = 0; }), HasSubstr("workers"));
  EXPECT_THAT(refusal([](TrainOptions& o) { o.loss.target = LossOptions::Target::dense; }), HasSubstr("dense"));
  EXPECT_THAT(refusal([](TrainOptions& o) { o.preprocessing.channels = 3; }), HasSubstr("channels"));
  TrainOptions o = made_options();
  o.profile = "/nowhere/trace.json";
  EXPECT_THAT(message_of<Error>([&] { train(graph, params, data, nullptr, made_card(), o); }),
              HasSubstr("/nowhere/trace.json"));
}

// Written into the checkpoint whole, where the caller's card names no network.
TEST_F(Misuse, TrainingsWithoutACard) {
  const TempFolder folder;
  const MadeSet data(64);
  Graph graph;
  made_network(graph);
  Params params(context_, graph, 1);
  TrainOptions o = made_options();
  o.epochs = 1;
  o.output_dir = folder.path("run");
  train(graph, params, data, nullptr, ModelCard{.preprocessing = made_pictures()}, o);
  const Network back = load_network(context_, folder.path("run/best.safetensors"));
  EXPECT_EQ(back.card.class_names, data.class_names());
  EXPECT_EQ(back.params->values(0), params.values(0));
}

// A label beyond the network's classes is a bad sample, which is named and replaced, or ends the training.
TEST_F(Misuse, LabelsBeyondTheNetwork) {
  const MadeSet data(64);
  Graph two;
  two.output(linear(flatten(two.input("image", {MadeSet::kSide, MadeSet::kSide, 1})), 2));
  Params params(context_, two, 1);
  TrainOptions o = made_options();
  o.epochs = 1;
  o.bad_samples = BadSamplePolicy::fail;
  EXPECT_THAT(message_of<DataError>([&] { train(two, params, data, nullptr, card_of(two, made_pictures()), o); }),
              HasSubstr("its label is 2, but the network has 2 classes"));
  EvalOptions eval;
  eval.preprocessing = made_pictures();
  Evaluator evaluator(two, params, data, eval);
  const EvalResult result = evaluator.run();
  EXPECT_TRUE(std::isfinite(result.loss));
  EXPECT_EQ(result.skipped, 21);
  const MadeSet negative(20, {}, {4});
  Evaluator unlabelled(graph_, *params_, negative, eval);
  const EvalResult rest = unlabelled.run();
  EXPECT_TRUE(std::isfinite(rest.loss));
  EXPECT_EQ(rest.skipped, 1);
}

// Through the overload of host memory, which knows one rate.
TEST_F(Misuse, GroupsThatEndEarlyLearnInLoopsOfOnesOwn) {
  Optimizer optimizer(*params_, {.groups = {{.pattern = "conv1", .epochs = 5}}});
  Plan plan(graph_, *params_, {.batch = 2, .training = true, .optimizer = &optimizer});
  const std::vector<float> images = pictures(2), before = params_->values(0);
  const int32_t labels[] = {0, 1};
  plan.run(images.data(), labels, 2, 0, 0.1F);
  EXPECT_NE(params_->values(0), before);
}

// A ReLU in the epilogue of a product hides NaN from the loss: the weights are looked at.
TEST_F(Misuse, TrainingsThatDivergeBehindAReluAreTold) {
  const MadeSet data(32);
  Graph graph;
  const Value x =
      relu(linear(flatten(graph.input("image", {MadeSet::kSide, MadeSet::kSide, 1})), 8, {.name = "hidden"}));
  graph.output(linear(x, 3, {.name = "fc"}));
  Params params(context_, graph, 1);
  params.set_values(0, std::vector<float>(8 * MadeSet::kSide * MadeSet::kSide, kNan));
  TrainOptions o = made_options();
  o.epochs = 1;
  EXPECT_THAT(
      message_of<NonFiniteError>([&] { train(graph, params, data, nullptr, card_of(graph, made_pictures()), o); }),
      HasSubstr("the values of 'hidden.weight' are not finite after step"));
}

}  // namespace
}  // namespace convolt::test
