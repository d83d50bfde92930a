// Under AddressSanitizer the slab is poisoned op by op: memory is accessible while its tensor lives, and at no other
// time.
#include <gtest/gtest.h>

#include "graph/networks.h"
#include "graph/plan_access.h"

namespace convolt::test {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kPoisoned = true;
#else
constexpr bool kPoisoned = false;
#endif

// An evaluation plan and its last op; the picture is long dead there, and so is its memory.
struct Planted {
  Planted() {
    network("resnet").build(graph);
    params = std::make_unique<Params>(*context, graph, 1);
    plan = std::make_unique<Plan>(graph, *params, PlanOptions{.batch = 2});
    batch = std::make_unique<DeviceBatch>(*context, graph, random_input(graph, 2, 1));
    last = PlanAccess::find(*plan, "loss");
    picture = PlanAccess::program(*plan).step[0].out[0];
  }
  void run() {
    plan->run(batch->step_input(0));
    context->compute().synchronize();
  }

  std::unique_ptr<Context> context = Context::create(Context::Options{Device::cpu(), 1});
  Graph graph;
  std::unique_ptr<Params> params;
  std::unique_ptr<Plan> plan;
  std::unique_ptr<DeviceBatch> batch;
  size_t last = 0;
  ValueId picture = kNoValue;
};

void read_the_dead_picture() {
  Planted p;
  // All of it: parts may be memory of what lives then, which is far smaller.
  const Tensor dead = PlanAccess::tensor(*p.plan, p.picture);
  PlanAccess::launches(*p.plan)[p.last] = [dead](Stream) {
    for (int64_t i = 0; i < dead.elements(); ++i) static_cast<void>(dead.as<volatile float>()[i]);
  };
  p.run();
}

void write_behind_the_logits() {
  Planted p;
  const Tensor logits = PlanAccess::tensor(*p.plan, PlanAccess::program(*p.plan).logits);
  PlanAccess::launches(*p.plan)[p.last] = [logits](Stream) { *(logits.as<volatile float>() + logits.elements()) = 1; };
  p.run();
}

TEST(SlabDeathTest, ReadingADeadTensorIsCaught) {
  if (!kPoisoned) GTEST_SKIP() << "needs AddressSanitizer";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(read_the_dead_picture(), "use-after-poison");
}

TEST(SlabDeathTest, WritingBehindATensorIsCaught) {
  if (!kPoisoned) GTEST_SKIP() << "needs AddressSanitizer";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(write_behind_the_logits(), "use-after-poison");
}

// Libraries are not instrumented: their operands are looked at before the call.
TEST(Slab, AnOperandThatIsDeadIsNamed) {
  if (!kPoisoned) GTEST_SKIP() << "needs AddressSanitizer";
  Planted p;
  p.run();
  PlanAccess::program(*p.plan).step[p.last].in.push_back(p.picture);
  try {
    p.run();
    FAIL() << "expected an error";
  } catch (const DeviceError& e) {
    const std::string message = e.what();
    EXPECT_TRUE(message.starts_with("loss 'loss' of ")) << message;
    EXPECT_TRUE(message.ends_with(": memory plan: an operand 'image' of this op is not alive")) << message;
  }
}

}  // namespace
}  // namespace convolt::test
