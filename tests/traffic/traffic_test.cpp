// The bytes and launches that graph/cost.h counts from shapes, against those that the kernels of a step are seen to
// need.
//
// What the library of convolutions and matrix products does cannot be seen, packing included: its part of the count is
// taken for granted. Nor does what carries a launch's arguments count: StepInput, StepStatus, the optimizer's tables.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "augment.h"
#include "graph/cost.h"
#include "graph/networks.h"
#include "graph/plan_access.h"
#include "traffic/recorder.h"

namespace convolt::test {
namespace {

// A training plan whose launches are recorded one by one.
class RecordedPlan {
public:
  RecordedPlan(const Network& network, PlanOptions options, const OptimizerOptions& optimizer) {
    network.build(graph_);
    params_ = std::make_unique<Params>(*context_, graph_, 1);
    randomise(*params_, 1);
    optimizer_ = std::make_unique<Optimizer>(*params_, optimizer);
    options.training = true;
    options.optimizer = optimizer_.get();
    plan_ = std::make_unique<Plan>(graph_, *params_, options);
    StepStatus status = plan_->status();
    status.loss_scale = 1;  // gradients that overflow would leave the optimizer nothing to write
    plan_->set_status(status);
    std::vector<Launch>& launches = PlanAccess::launches(*plan_);
    traffic_.resize(launches.size());
    for (size_t i = 0; i < launches.size(); ++i)
      launches[i] = [this, i, launch = launches[i]](Stream s) {
        take_traffic();
        launch(s);
        traffic_[i] = take_traffic();
      };
  }
  // An update; of its micro-batches the last one is seen.
  void run() {
    watch(operands());
    const auto input = random_input(graph_, plan_->options().batch, 1);
    const std::vector<float> images(input.images.begin(), input.images.end());
    for (int i = 0; i < plan_->options().accumulate; ++i)
      plan_->run(images.data(), input.labels.data(), plan_->options().batch, 0, 0.01F);
    EXPECT_EQ(plan_->status().skipped_steps, 0);
    watch({});
  }
  // With pictures of the network's size, each with another contrast.
  void run_pictures() {
    const int batch = plan_->options().batch, height = plan_->height(), width = plan_->width();
    const DeviceBatch others(*context_, graph_, random_input(graph_, batch, 1));
    StepInput input = others.step_input(0);
    std::vector<uint8_t> pixels(static_cast<size_t>(batch) * static_cast<size_t>(height * width * 3), 100);
    std::vector<SampleRecord> records(static_cast<size_t>(batch));
    for (SampleRecord& r : records) {
      static_cast<RowRecord&>(r) = {.offset = (&r - records.data()) * int64_t{height} * width * 3,
                                    .height = height,
                                    .width = width,
                                    .stride = width,
                                    .box = {0, 0, static_cast<float>(width), static_cast<float>(height)},
                                    .contrast = 1.2F};
    }
    input.pixels = pixels.data();
    input.records = records.data();
    const std::vector<RowMix> mixes(records.size(), {0.75F, {}});
    input.mixes = mixes.data();
    auto all = operands();
    all.push_back({DType::u8, {static_cast<int64_t>(pixels.size())}, pixels.data()});
    all.push_back({DType::i32, {batch}, const_cast<int32_t*>(input.labels)});
    all.push_back({DType::f32, {batch}, const_cast<float*>(input.weights)});
    watch(all);
    plan_->run(input);
    plan_->status();  // synchronises
    watch({});
  }
  const Program& program() const { return PlanAccess::compiled(*plan_).program; }
  const Traffic& traffic(size_t i) const { return traffic_[i]; }

private:
  std::vector<Tensor> operands() const {
    const CompiledPlan& c = PlanAccess::compiled(*plan_);
    const std::set<ValueId> arguments{program().step_input, program().step_status, program().meters,
                                      c.device_tensors,     c.device_tiles,        c.device_pieces};
    std::vector<Tensor> all;
    for (ValueId v = 0; v < static_cast<ValueId>(program().values.size()); ++v)
      if (!arguments.contains(v)) all.push_back(PlanAccess::tensor(*plan_, v));
    for (int i = 0; i < static_cast<int>(params_->specs().size()); ++i) {
      all.push_back(params_->tensor(i));
      if (optimizer_->average() != nullptr) all.push_back(optimizer_->average()->tensor(i));
      if (!params_->specs()[static_cast<size_t>(i)].trainable) continue;
      for (size_t m = 0; m < optimizer_->moments().size(); ++m) all.push_back(optimizer_->moment(m, i));
    }
    return all;
  }

  std::unique_ptr<Context> context_ = Context::create({Device::cpu(), 1});
  Graph graph_;
  std::unique_ptr<Params> params_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Plan> plan_;
  std::vector<Traffic> traffic_;
};

// The library's part of the op's cost: of a composed op the plain convolution.
OpCost library_cost(const Op& op, const Program& program) {
  if (op.kernel == nullptr) return {.launches = 0};
  Op plain = op;
  if (op.composed) {
    plain.composed = false;
    plain.in.resize(std::min<size_t>(op.in.size(), op.def == &ops::conv_fprop || op.def == &ops::linear_fprop ? 3 : 2));
    plain.out.resize(1);
  }
  return cost_of(plain, program);
}

// Of rows that stochastic depth drops, as chance has it, the CPU reads nothing; the count is of all.
double not_read(const Op& op, const Program& program) {
  if (op.def != &ops::stochastic_depth) return 0;
  return static_cast<double>(std::get<DropoutAttrs>(op.attrs).p) * static_cast<double>(program[op.in[0]].bytes());
}

// Whether the op's reduction is finished by the block that ends last, on a GPU in the same launch: here it is a loop of
// its own.
bool finishes_in_one_launch(const Op& op) {
  if (const auto* o = std::get_if<OptimizerAttrs>(&op.attrs); o != nullptr && op.def == &ops::optimizer_update)
    return o->rule.needs_norms() && o->rule.clip_adaptive == 0;
  const OpDef* const reductions[] = {&ops::bn_statistics,
                                     &ops::bn_backward_reduce,
                                     &ops::bn_backward_join,
                                     &ops::bn_max_pool_backward_reduce,
                                     &ops::channel_sum,
                                     &ops::scale_channels_backward,
                                     &ops::norm_backward_params,
                                     &ops::branch_end_backward,
                                     &ops::activation_backward_sum,
                                     &ops::loss};
  if (const auto* linear = std::get_if<LinearAttrs>(&op.attrs); linear != nullptr && op.composed)
    return linear->desc.epilogue != ConvEpilogue::bias_relu_mask;
  if (op.composed && std::get<ConvAttrs>(op.attrs).desc.epilogue != ConvEpilogue::none) return true;
  return std::find(std::begin(reductions), std::end(reductions), op.def) != std::end(reductions);
}

// The loops that the CPU has of an op beside a GPU's launches. Sums over sets of several pixels are three of them: the
// numbers that are taken off, the sums by channels, and their joins.
int more_loops(const Op& op) {
  if (op.def == &ops::norm || op.def == &ops::norm_backward)
    return std::get<NormAttrs>(op.attrs).sets.pixels > 1 ? 2 : 0;
  return finishes_in_one_launch(op) ? 1 : 0;
}

void expect_counted(const std::string& network_name, const PlanOptions& options, const OptimizerOptions& optimizer) {
  RecordedPlan plan(network(network_name), options, optimizer);
  options.augment ? plan.run_pictures() : plan.run();
  const Program& p = plan.program();
  int64_t counted_in_all = 0, seen_in_all = 0;
  for (size_t i = 0; i < p.step.size(); ++i) {
    const Op& op = p.step[i];
    SCOPED_TRACE(std::string(op.def->name) + " '" + op.layer + "'");
    const OpCost cost = cost_of(op, p), library = library_cost(op, p);
    const Traffic& seen = plan.traffic(i);
    EXPECT_EQ(cost.launches - library.launches + more_loops(op), seen.launches);
    const double bytes = static_cast<double>(cost.bytes - library.bytes) - not_read(op, p);
    // Operands of a few bytes for each channel are counted whole and not always read so: two of the four rows of a
    // batch norm's coefficients.
    double tolerance = 256 + 0.01 * bytes + not_read(op, p);
    // It has one scratch for all rules, of which each uses a part.
    if (op.def == &ops::optimizer_update) tolerance += 2 * static_cast<double>(p[op.scratch].bytes());
    EXPECT_NEAR(bytes, static_cast<double>(seen.bytes), tolerance);
    counted_in_all += cost.bytes;
    seen_in_all += seen.bytes + library.bytes;
  }
  EXPECT_NEAR(static_cast<double>(counted_in_all), static_cast<double>(seen_in_all),
              0.01 * static_cast<double>(seen_in_all));
}

constexpr int kBatch = 32;  // of small pictures, so that tensors outweigh what there is once for each channel

class Networks : public testing::TestWithParam<Network> {};

TEST_P(Networks, TrainAsCounted) { expect_counted(GetParam().name, {.batch = kBatch}, {}); }
TEST_P(Networks, TrainAsCountedWithoutPasses) {
  expect_counted(GetParam().name, {.batch = kBatch, .passes = Passes::none()}, {});
}
TEST_P(Networks, TrainAsCountedWithFusionsOfConvolutions) {
  expect_counted(GetParam().name, {.batch = kBatch, .compose_fusions = true}, {});
}
TEST_P(Networks, TrainAsCountedInHalfPrecision) {
  expect_counted(GetParam().name, {.batch = kBatch, .dtype = DType::f16}, {});
  expect_counted(GetParam().name, {.batch = kBatch, .dtype = DType::f16, .compose_fusions = true}, {});
}

INSTANTIATE_TEST_SUITE_P(All, Networks, testing::ValuesIn(networks()),
                         [](const testing::TestParamInfo<Network>& n) { return n.param.name; });

TEST(Optimizers, UpdateAsCounted) {
  using Kind = OptimizerOptions::Kind;
  const OptimizerOptions rules[] = {
      {.momentum = 0},
      {.nesterov = true, .weight_decay = 0.1F, .clip_norm = 1},
      {.kind = Kind::adam, .clip_adaptive = 0.01F},
      {.kind = Kind::adamw, .ema_decay = 0.9},
      {.kind = Kind::rmsprop},
      {.kind = Kind::lars},
      {.kind = Kind::lion},
      {.kind = Kind::lamb, .weight_decay = 0.1F},
      {.kind = Kind::lamb, .clip_norm = 0, .ema_decay = 0.9},
  };
  for (const OptimizerOptions& rule : rules) {
    SCOPED_TRACE(testing::Message() << "rule " << &rule - rules);
    expect_counted("mobilenet", {.batch = kBatch}, rule);
    expect_counted("mobilenet", {.batch = kBatch, .dtype = DType::bf16, .accumulate = 2}, rule);
  }
}

TEST(Pictures, AreAugmentedAsCounted) {
  for (const float contrast : {0.F, 0.5F}) {
    const AugmentOptions pictures{
        .height = 9, .width = 8, .geometry = AugmentOptions::Geometry::none, .contrast = contrast};
    expect_counted("cifar", {.batch = kBatch, .augment = pictures}, {});
    expect_counted("cifar", {.batch = kBatch, .augment = pictures, .mixing = true}, {});
  }
}

}  // namespace
}  // namespace convolt::test
