// What is measured runs, and counts what it should; nothing here looks at a time.
#include <gmock/gmock.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "bench/conv_rows.h"
#include "bench/kernel_rows.h"
#include "bench/step_row.h"
#include "support/device.h"

namespace convolt {
// Of kernels/exec/launch.h, which only .cu files may include.
extern int64_t past_caches_from;
}  // namespace convolt

namespace convolt::test {
namespace {

using namespace bench;

TEST(CopyMemory, CopiesEveryByteAndNoMore) {
  for (const int64_t bytes : {0, 1, 31, 32, 33, 4095, 4096, 4097, 100'000})
    for (const bool past_caches : {false, true})
      for (const int threads : {1, 2, 3}) {
        alignas(32) static char from[100'064], to[100'064];
        for (size_t i = 0; i < sizeof from; ++i) from[i] = static_cast<char>(i * 7 + 1);
        std::fill_n(to, sizeof to, '!');
        copy_memory(to, from, bytes, threads, past_caches);
        EXPECT_TRUE(std::equal(from, from + bytes, to)) << bytes;
        EXPECT_TRUE(std::all_of(to + bytes, to + sizeof to, [](char c) { return c == '!'; })) << bytes;
      }
}

// The bytes of one row, of tensors of about 8000 bytes.
int64_t bytes_of(const std::string& name, DType dtype = DType::f32, int64_t tensor_bytes = 8000) {
  for (const KernelRow& row : kernel_rows())
    if (row.name == name) {
      Operands operands(context_of(Device::cpu()), dtype, tensor_bytes);
      row.make(operands);
      return operands.bytes();
    }
  ADD_FAILURE() << "no row " << name;
  return 0;
}

// One picture of 56 x 56 x 64 is the least.
constexpr int64_t kPicture = 56 * 56 * 64;

TEST(KernelRows, CountTheBytesThatTheHeadersState) {
  EXPECT_EQ(bytes_of("channel_stats"), kPicture * 4);
  EXPECT_EQ(bytes_of("bn_apply relu"), 2 * kPicture * 4);
  EXPECT_EQ(bytes_of("bn_apply relu", DType::bf16), 2 * kPicture * 2);
  EXPECT_EQ(bytes_of("bn_apply add relu"), 3 * kPicture * 4);
  EXPECT_EQ(bytes_of("bn_backward_reduce relu"), 2 * kPicture * 4);
  EXPECT_EQ(bytes_of("bn_backward_reduce add relu"), 3 * kPicture * 4);
  EXPECT_EQ(bytes_of("bn_backward_apply relu"), 3 * kPicture * 4);
  EXPECT_EQ(bytes_of("bn_backward_apply add relu"), 5 * kPicture * 4);
  EXPECT_EQ(bytes_of("block_end relu"), 4 * kPicture * 3 * 4 + 4 * kPicture / 8);
  EXPECT_EQ(bytes_of("gradient_join", DType::f16), 4 * kPicture * 4 * 2 + 4 * kPicture / 8);
  EXPECT_EQ(bytes_of("gradient_join two branches"), 4 * kPicture * 5 * 4 + 4 * kPicture / 8);
  EXPECT_EQ(bytes_of("bn_pair_backward"), 5 * 4 * kPicture * 4);
  EXPECT_EQ(bytes_of("branch_end"), 3 * int64_t{56 * 56 * 96} * 4);
  EXPECT_EQ(bytes_of("bn_max_pool 3x3 s2"), 4 * kPicture * 4 + kPicture * (4 + 1));
  EXPECT_EQ(bytes_of("bn_max_pool_backward_apply 3x3 s2"), 2 * 4 * kPicture * 4 + kPicture * (4 + 1));
  EXPECT_EQ(bytes_of("add"), 3 * kPicture * 4);
  EXPECT_EQ(bytes_of("cast f32 to f16"), 2000 * (4 + 2));
  EXPECT_EQ(bytes_of("max_pool 2x2"), kPicture * 4 + kPicture / 4 * (4 + 1));
  EXPECT_EQ(bytes_of("slice_pad"), 2 * (32 * 32 * 16 / 4 * 4 + 16 * 16 * 32 * 4) / 2);
  EXPECT_EQ(bytes_of("norm_backward layer"), 5 * int64_t{56 * 56 * 96} * 4);
  EXPECT_EQ(bytes_of("softmax 1000 classes"), 2 * 2 * 4000);
  EXPECT_EQ(bytes_of("loss binary_cross_entropy 1000 classes"), 2 * 3 * 4000);
  EXPECT_EQ(bytes_of("optimizer sgd"), 2000 * (4 + 8 + 8));
  EXPECT_EQ(bytes_of("optimizer sgd clipped"), 2000 * (4 + 4 + 8 + 8));
  EXPECT_EQ(bytes_of("optimizer adam", DType::bf16), 2000 * (2 + 8 + 16 + 2));
  EXPECT_EQ(bytes_of("optimizer lars"), 2000 * (4 + 4 + 4 + 8 + 8));
  EXPECT_EQ(bytes_of("optimizer lamb"), 2000 * (4 + 4 + 12 + 8 + 16));
  EXPECT_EQ(bytes_of("optimizer sgd and average"), 2000 * (4 + 8 + 8 + 8));
  EXPECT_EQ(bytes_of("mix mixup", DType::f16), 2 * 2 * int64_t{224 * 224 * 3} * 2);
  EXPECT_EQ(bytes_of("mix cutmix", DType::f32, 3 * 224 * 224 * 3 * 4), 2 * 2 * int64_t{224 * 224 * 3} * 4);
  EXPECT_EQ(bytes_of("accumulate_gradients", DType::f16), 2000 * (2 + 8));
}

TEST(KernelRows, TensorsAreAboutAsLargeAsAsked) {
  EXPECT_EQ(bytes_of("add", DType::f32, 10 * kPicture * 4), 3 * 10 * kPicture * 4);
  EXPECT_EQ(bytes_of("add", DType::f16, 10 * kPicture * 4), 3 * 10 * kPicture * 4);
}

TEST(KernelRows, HaveNamesOfTheirOwn) {
  std::set<std::string> names;
  for (const KernelRow& row : kernel_rows()) EXPECT_TRUE(names.insert(row.name).second) << row.name;
}

class EveryKernelRow : public testing::TestWithParam<DType> {};
TEST_P(EveryKernelRow, Runs) {
  Context& context = context_of(Device::cpu());
  for (const KernelRow& row : kernel_rows()) {
    SCOPED_TRACE(row.name);
    Operands operands(context, GetParam(), 1);
    const Work work = row.make(operands);
    EXPECT_GT(operands.bytes(), 0);
    EXPECT_GT(operands.shape().rank(), 0);
    EXPECT_NO_THROW(run(context, work));
  }
}
// A result that passes the caches by is the same, and so is what surrounds it.
TEST_P(EveryKernelRow, WritesTheSamePastTheCaches) {
  Context& context = context_of(Device::cpu());
  for (const KernelRow& row : kernel_rows()) {
    SCOPED_TRACE(row.name);
    std::vector<std::vector<char>> results;
    for (const int64_t from : {int64_t{1} << 60, int64_t{0}}) {
      Operands operands(context, GetParam(), 1);
      const Work work = row.make(operands);
      past_caches_from = from;
      run(context, work);
      past_caches_from = -1;
      std::vector<char>& bytes = results.emplace_back();
      for (const Tensor& t : operands.results()) bytes.insert(bytes.end(), t.as<char>(), t.as<char>() + t.bytes());
    }
    EXPECT_TRUE(results[0] == results[1]);
  }
}
INSTANTIATE_TEST_SUITE_P(Bench, EveryKernelRow, testing::Values(DType::f32, DType::bf16, DType::f16),
                         [](const auto& made) { return std::string(convolt::name_of(made.param)); });

std::vector<ConvCase> cases_of(const char* model, int batch) {
  Graph graph;
  build_model(graph, model, {.classes = 0});
  PlanOptions options;
  options.batch = batch;
  options.training = true;
  return conv_cases(graph, options);
}

int count_of(const std::vector<ConvCase>& cases, ConvPass pass) {
  int count = 0;
  for (const ConvCase& c : cases) count += c.pass() == pass ? c.count : 0;
  return count;
}

// 19 convolutions and a linear layer; nobody wants the gradient of the pictures.
TEST(ConvCases, HaveEveryLayerInEachPass) {
  const auto cases = cases_of("resnet20", 8);
  EXPECT_EQ(count_of(cases, ConvPass::fprop), 20);
  EXPECT_EQ(count_of(cases, ConvPass::dgrad), 19);
  EXPECT_EQ(count_of(cases, ConvPass::wgrad), 20);
  EXPECT_EQ(cases[0].layer, "conv1");
  EXPECT_EQ(cases[0].shape(), "n8 32x32x3 -> 16, 3x3 s1 p1");
  EXPECT_EQ(cases[1].pass(), ConvPass::wgrad);
  EXPECT_EQ(cases.back().shape(), "n8 64 -> 10");
  for (size_t i = 1; i < cases.size(); ++i)
    EXPECT_TRUE(cases[i].shape() != cases[i - 1].shape() || cases[i - 1].pass() < cases[i].pass()) << i;
}

TEST(ConvCases, MultiplyAsOftenAsTheNetwork) {
  Graph graph;
  build_model(graph, "resnet20", {.classes = 0});
  int64_t flops = 0;
  for (const ConvCase& c : cases_of("resnet20", 8)) flops += c.pass() == ConvPass::fprop ? c.count * c.flops() : 0;
  EXPECT_EQ(flops, 8 * 2 * forward_multiply_adds(graph));
}

TEST(ConvCases, EveryCandidateIsTimed) {
  Context& context = context_of(Device::cpu());
  Stopwatch stopwatch(context);
  const Limit copy{"", 1e10, 1e10}, matmul{"", 1e11, 1e11};
  for (const ConvCase& c : cases_of("lenet", 1)) {
    const Row row = time_candidates(stopwatch, c, copy, matmul, {.samples = 3, .seconds = 0});
    const size_t known = std::visit([&](const auto& d) { return context.conv().candidates(d).size(); }, c.desc);
    ASSERT_EQ(row.timings.size(), known) << row.name;
    std::set<std::string> names;
    for (const Timing& t : row.timings) {
      EXPECT_TRUE(names.insert(t.name).second) << row.name;
      EXPECT_EQ(t.chosen, &t == &row.timings[0]);
      EXPECT_GT(t.fraction, 0);
    }
    EXPECT_EQ(row.bytes, 4 * (c.x() + c.w() + c.y()));
  }
}

TEST(StepRow, TellsThePlansFigures) {
  const StepOptions options{.batch = 4, .steps = 1, .kernels = {}, .memory_budget = {}};
  const Sampling sampling{.samples = 3, .seconds = 0};
  const Row row = time_steps(context_of(Device::cpu()), find_model("lenet"), {options}, sampling)[0];
  EXPECT_EQ(row.shape, "n4 28x28x1");
  EXPECT_EQ(row.images, 4);
  EXPECT_GT(row.bytes, 0);
  EXPECT_GT(row.flops, 0);
  EXPECT_GT(row.memory, 0);
  ASSERT_EQ(row.timings.size(), 2U);
  EXPECT_EQ(row.timings[0].ms.n, 3);
}

TEST(StepRow, WhatFindsNoMemoryBesideTheLastIsLeftOut) {
  const Sampling sampling{.samples = 3, .seconds = 0};
  const auto of_batch = [](int n) { return StepOptions{.batch = n, .steps = 1, .kernels = {}, .memory_budget = {}}; };
  const StepOptions small = of_batch(2), huge = of_batch(500'000'000);
  const auto rows = time_steps(context_of(Device::cpu()), find_model("lenet"), {huge, small}, sampling);
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].images, 2);
  EXPECT_THROW(time_steps(context_of(Device::cpu()), find_model("lenet"), {small, huge}, sampling), OutOfMemoryError);
}

// Beside it what a budget costs would look like less.
TEST(StepRow, WhatRecomputesIsLeftOutBesideTheLast) {
  const Sampling sampling{.samples = 3, .seconds = 0};
  StepOptions whole{.batch = 16, .steps = 1, .kernels = {}, .memory_budget = {}}, within = whole;
  within.memory_budget = 16 << 20;
  const auto timed = [&](const std::vector<StepOptions>& options) {
    return time_steps(context_of(Device::cpu()), find_model("resnet20"), options, sampling);
  };
  EXPECT_EQ(timed({whole, within}).size(), 2U);
  const auto rows = timed({within, whole});
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].shape, "n16 32x32x3");
}

}  // namespace
}  // namespace convolt::test
