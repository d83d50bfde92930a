#include <gtest/gtest.h>

#include "convolt/models.h"
#include "convolt/plan.h"
#include "support/device.h"

namespace convolt::test {
TEST(Smoke, Resnet20Learns) {
  Context& ctx = context_of(Device::cpu());
  Graph g;
  build_model(g, "resnet20", {.classes = 10});
  Params params(ctx, g, 1);
  Sgd sgd(params, {.weight_decay = 1e-4F});
  Plan plan(g, params, {.batch = 32, .training = true, .optimizer = &sgd});
  printf("%s\n", plan.describe().c_str());
  std::vector<float> images(32 * 32 * 32 * 3);
  auto r = random_values(static_cast<int64_t>(images.size()), 3);
  for (size_t i = 0; i < r.size(); ++i) images[i] = static_cast<float>(r[i]);
  std::vector<int32_t> labels(32);
  for (int i = 0; i < 32; ++i) labels[static_cast<size_t>(i)] = i % 10;
  double before = 0;
  for (int s = 0; s < 20; ++s) {
    plan.reset_meters();
    plan.run(images.data(), labels.data(), 32, s, 0.05F);
    const auto m = plan.meters();
    printf("%d %f %f\n", s, m.loss / m.weight, m.top1);
    if (s == 0) before = m.loss;
    if (s == 19) { EXPECT_LT(m.loss, before * 0.2); }
  }
}
}  // namespace convolt::test
