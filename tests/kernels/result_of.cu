// Which results pass the caches by.
#include <gtest/gtest.h>

#include "exec/launch.h"

namespace convolt::test {
namespace {

TEST(ResultOf, PassesTheCachesByWhereItIsLargeAlignedAndNoOperand) {
  alignas(32) float y[16], x[16];
  past_caches_from = 32;
  const auto passes = [&](Stream s, float* data, int64_t bytes) {
    return result_of<float>(s, data, bytes, {x, x + 8}).past_caches;
  };
  EXPECT_TRUE(passes(Stream{}, y, 33));
  EXPECT_TRUE(passes(Stream{}, y + 8, 33));
  EXPECT_FALSE(passes(Stream{}, y, 32));
  EXPECT_FALSE(passes(Stream{}, y + 4, 33));
  EXPECT_FALSE(passes(Stream{}, x, 33));
  EXPECT_FALSE(passes(Stream{}, x + 8, 33));
  EXPECT_FALSE(passes(Stream{.cuda = true}, y, 33));
  past_caches_from = -1;
  EXPECT_FALSE(passes(Stream{}, y, 33));
}

}  // namespace
}  // namespace convolt::test
