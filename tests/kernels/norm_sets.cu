// The sums of sets as GPUs divide them among threads, on the CPU, which itself takes a thread for each.
#include "exec/norm_sets.h"

#include <gtest/gtest.h>

#include "kernel_test.h"

namespace convolt::test {
namespace {

// Of whole numbers and of their squares, so that any order gives the same.
struct Plain {
  const float* x;
  double* sums;  // [sets, 2]
  HD Nothing kept(int64_t, int64_t) const { return {}; }
  template <int W>
  HD Ahead<float, W> operands(int64_t i, bool exists) const {
    return Ahead<float, W>::of(x + i, exists);
  }
  template <int W>
  HD void add(const Ahead<float, W>& o, Nothing, int, Floats<W> (&of_lane)[2]) const {
    const Floats<W> v = o.of_existing();
    for_lanes<W>([&](int j) {
      of_lane[0][j] += v[j];
      of_lane[1][j] += v[j] * v[j];
    });
  }
  HD void finish(int64_t set, int64_t, const double (&of_set)[2]) const {
    for (int k = 0; k < 2; ++k) sums[2 * set + k] = of_set[k];
  }
};

template <int W, int L, int R>
void check(const Shape& shape, const NormSets& sets) {
  std::vector<float> x(static_cast<size_t>(shape.elements()));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7 % 13) - 4;
  const int64_t count = sets.sets_of(shape), channels = shape[-1], width = channels / sets.groups;
  std::vector<double> expected(static_cast<size_t>(2 * count));
  for (int64_t i = 0; i < shape.elements(); ++i) {
    const int64_t picture = i / channels / sets.pixels, set = picture * sets.groups + i % channels / width;
    const auto v = static_cast<double>(x[static_cast<size_t>(i)]);
    expected[static_cast<size_t>(2 * set)] += v;
    expected[static_cast<size_t>(2 * set + 1)] += v * v;
  }
  Tensor tensor;
  tensor.shape = shape;
  const auto sum = [&] {
    std::vector<double> sums(expected.size(), -1);
    const SumSets<W, L, R, Plain> of_sets(NormLayout(tensor, sets), count, {x.data(), sums.data()});
    for_each_block_on_cpu<256>(of_sets.blocks(), of_sets);
    return sums;
  };
  EXPECT_EQ(sum(), expected) << W << " wide, " << L << " lanes, " << R << " sets";
  const PhasesBackwards backwards;
  EXPECT_EQ(sum(), expected) << W << " wide, " << L << " lanes, " << R << " sets, backwards";
}

// Sets of fewer packets than lanes and of more, of one pixel and of several, and more of them than a block holds.
TEST(NormSets, EachDivisionAmongThreadsGivesTheSameSums) {
  check<8, 4, 4>({300, 1, 1, 96}, {1, 1});
  check<8, 8, 8>({300, 1, 1, 384}, {1, 1});
  check<8, 32, 8>({2, 7, 7, 48}, {49, 3});
  check<8, 256, 1>({2, 9, 9, 64}, {81, 1});
  check<8, 8, 1>({70, 1, 1, 8}, {1, 1});
  check<2, 8, 1>({3, 5, 5, 64}, {25, 32});
  check<2, 256, 1>({2, 30, 30, 12}, {900, 2});
  check<1, 8, 1>({3, 5, 5, 9}, {25, 3});
  check<1, 256, 1>({2, 30, 30, 5}, {900, 1});
}

}  // namespace
}  // namespace convolt::test
