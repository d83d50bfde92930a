// Pictures that grow from epoch to epoch, in every batch of a loader.
#include "augment/policy.h"
#include "loader_fixture.h"

namespace convolt::test {
namespace {

class LoaderGrowTest : public LoaderTest {
protected:
  // Sides 2, 3, 4, 4 in epochs of four batches.
  static LoaderOptions growing() {
    LoaderOptions o = options(7);
    o.sizes = {.least = 2, .start = 0, .end = 2, .step = 1};
    o.mixing = {.cutmix_alpha = 1, .mode = MixOptions::Mode::elem};
    return o;
  }
};

TEST_P(LoaderGrowTest, RecordsAndBoxesAreOfTheEpochsSize) {
  const MemoryDataset dataset(30);
  const LoaderOptions o = growing();
  const auto batches = take(*Loader::create(context(), dataset, o), 7, 16);
  const int sides[] = {2, 3, 4, 4};
  for (int64_t epoch = 0; epoch < 4; ++epoch) {
    LoaderOptions fixed = o;
    fixed.sizes = {};
    fixed.augment.height = fixed.augment.width = sides[epoch];
    fixed.first_step = 4 * epoch;
    EXPECT_EQ(take(*Loader::create(context(), dataset, fixed), 7, 4),
              std::vector(batches.begin() + 4 * epoch, batches.begin() + 4 * (epoch + 1)))
        << epoch;
  }
}

TEST_P(LoaderGrowTest, TheSameForAnyThreadsResidentAndAfterAResume) {
  const MemoryDataset dataset(30);
  LoaderOptions o = growing();
  o.threads = 1;
  const auto one = take(*Loader::create(context(), dataset, o), 7, 12);
  o.threads = 5;
  EXPECT_EQ(take(*Loader::create(context(), dataset, o), 7, 12), one);
  o.resident = true;
  EXPECT_EQ(take(*Loader::create(context(), dataset, o), 7, 12), one) << "resident";
  o.first_step = 6;
  EXPECT_EQ(take(*Loader::create(context(), dataset, o), 7, 6), std::vector(one.begin() + 6, one.end()));
}

TEST_P(LoaderGrowTest, EvaluationHasTheFullSize) {
  const MemoryDataset dataset(12);
  LoaderOptions o = growing();
  o.training = false;
  LoaderOptions fixed = o;
  fixed.sizes = {};
  EXPECT_EQ(take(*Loader::create(context(), dataset, o), 7, 2), take(*Loader::create(context(), dataset, fixed), 7, 2));
}

INSTANTIATE_TEST_SUITE_P(Devices, LoaderGrowTest, testing::Values(Device::cpu(), Device::cuda()), device_name);

}  // namespace
}  // namespace convolt::test
