// The two-byte floats of kernels/exec/types.h against the oracle of tests/support, over all their bit patterns.
#include <gtest/gtest.h>

#include <cmath>

#include "activation.h"
#include "kernel_test.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using Vector = std::vector<double>;

// dtype() is bf16 or f16.
class CastTest : public OpTest {
protected:
  // Casts in whole packets, or seven elements at a time at every eighth: then each goes through the scalar tail.
  void cast_all(const Tensor& x, const Tensor& y, bool tails) const {
    run(ctx(), [&](Stream s) {
      if (!tails) return cast(s, x, y);
      for (int64_t first = 0; first + 7 <= x.elements(); first += 8) cast(s, part(x, first), part(y, first));
    });
  }
  static Tensor part(const Tensor& t, int64_t first) { return {t.dtype, {7}, t.as<char>() + first * size_of(t.dtype)}; }
  std::vector<uint16_t> bits_of(const Tensor& t) const {
    std::vector<uint16_t> bits(static_cast<size_t>(t.elements()));
    ctx().compute().copy(bits.data(), t.data, t.bytes());
    ctx().compute().synchronize();
    return bits;
  }
};

constexpr int64_t kPatterns = 65536;
// All patterns in a row; or seven in each eight places, the eighth being 0.
std::vector<uint16_t> all_patterns(bool tails) {
  std::vector<uint16_t> bits;
  for (int64_t i = 0; i < kPatterns; ++i) {
    if (tails && bits.size() % 8 == 7) bits.push_back(0);
    bits.push_back(static_cast<uint16_t>(i));
  }
  while (bits.size() % 8 != 0) bits.push_back(0);
  return bits;
}

TEST_P(CastTest, EveryPatternToFloatAndBack) {
  for (const bool tails : {false, true}) {
    const std::vector<uint16_t> patterns = all_patterns(tails);
    const auto n = static_cast<int64_t>(patterns.size());
    const DeviceTensor narrow(ctx(), dtype(), {n}), wide(ctx(), DType::f32, {n}, Vector(patterns.size()));
    const DeviceTensor back(ctx(), dtype(), {n}, Vector(patterns.size()));
    ctx().compute().copy(narrow.tensor().data, patterns.data(), narrow.tensor().bytes());
    cast_all(narrow, wide, tails);
    cast_all(wide, back, tails);
    const Vector expected = narrow.values(), found = wide.values();
    const std::vector<uint16_t> returned = bits_of(back);
    const Vector returned_values = back.values();
    for (size_t i = 0; i < patterns.size(); ++i) {
      if (std::isnan(expected[i])) {
        ASSERT_TRUE(std::isnan(found[i]) && std::isnan(returned_values[i])) << "pattern " << patterns[i];
        continue;
      }
      ASSERT_EQ(found[i], expected[i]) << "pattern " << patterns[i];
      ASSERT_EQ(std::signbit(found[i]), patterns[i] >= 0x8000) << "pattern " << patterns[i];
      ASSERT_EQ(returned[i], patterns[i]);
    }
    wide.check_guards();
    back.check_guards();
  }
}

// Each point half way between two neighbours (ties go to the even one) and the floats right beside it; the first that
// overflow; the largest that underflow to 0.
TEST_P(CastTest, RoundsToNearestEven) {
  const int infinity = dtype() == DType::bf16 ? 0x7f80 : 0x7c00;
  std::vector<uint16_t> patterns;
  for (int i = 0; i <= infinity; ++i) patterns.push_back(static_cast<uint16_t>(i));
  const DeviceTensor narrow(ctx(), dtype(), {infinity + 1});
  ctx().compute().copy(narrow.tensor().data, patterns.data(), narrow.tensor().bytes());
  Vector grid = narrow.values();
  grid.back() =
      2 * grid[grid.size() - 2] - grid[grid.size() - 3];  // where the next number would be: beyond is infinity
  Vector points;
  for (size_t i = 0; i + 1 < grid.size(); ++i) {
    const auto middle = static_cast<float>((grid[i] + grid[i + 1]) / 2);
    for (const float p : {std::nextafter(middle, 0.F), middle, std::nextafter(middle, INFINITY)})
      for (const float sign : {1.F, -1.F}) {
        if (points.size() % 8 == 7) points.push_back(0);  // the place that tails leave out
        points.push_back(static_cast<double>(sign * p));
      }
  }
  while (points.size() % 8 != 0) points.push_back(0);
  const auto n = static_cast<int64_t>(points.size());
  const Vector expected = rounded(points, dtype());
  for (const bool tails : {false, true}) {
    const DeviceTensor wide(ctx(), DType::f32, {n}, points), found(ctx(), dtype(), {n}, Vector(points.size()));
    cast_all(wide, found, tails);
    const Vector values = found.values();
    for (size_t i = 0; i < points.size(); ++i)
      ASSERT_EQ(values[i], expected[i]) << "of " << points[i] << (tails ? " in a tail" : "");
    found.check_guards();
  }
}

TEST_P(CastTest, NanWithAnyPayloadStaysNan) {
  std::vector<uint32_t> bits;
  for (const uint32_t payload : {0x1U, 0xffffU, 0x10000U, 0x1fffU, 0x2000U, 0x400000U, 0x7fffffU, 0x3fffffU})
    for (const uint32_t sign : {0U, 0x80000000U}) {
      if (bits.size() % 8 == 7) bits.push_back(0);
      bits.push_back(sign | 0x7f800000U | payload);
    }
  while (bits.size() % 8 != 0) bits.push_back(0);
  const auto n = static_cast<int64_t>(bits.size());
  const DeviceTensor wide(ctx(), DType::f32, {n});
  ctx().compute().copy(wide.tensor().data, bits.data(), wide.tensor().bytes());
  for (const bool tails : {false, true}) {
    const DeviceTensor found(ctx(), dtype(), {n}, Vector(bits.size()));
    cast_all(wide, found, tails);
    const Vector values = found.values();
    for (size_t i = 0; i < bits.size(); ++i) EXPECT_EQ(std::isnan(values[i]), bits[i] != 0) << std::hex << bits[i];
  }
}

TEST_P(CastTest, AnySizeAndBetweenTheNarrowTypes) {
  for (const int64_t n : {1, 7, 8, 9, 4099}) {
    const Vector x = random_values(n, 1);
    const DeviceTensor wide(ctx(), DType::f32, {n}, x), same(ctx(), DType::f32, {n}), narrow(ctx(), dtype(), {n});
    const DType other = dtype() == DType::bf16 ? DType::f16 : DType::bf16;
    const DeviceTensor across(ctx(), other, {n});
    run(ctx(), [&](Stream s) {
      cast(s, wide, same);
      cast(s, wide, narrow);
      cast(s, narrow, across);
    });
    EXPECT_EQ(same.values(), wide.values());
    EXPECT_EQ(narrow.values(), rounded(wide.values(), dtype()));
    EXPECT_EQ(across.values(), rounded(narrow.values(), other));
    for (const DeviceTensor* t : {&same, &narrow, &across}) t->check_guards();
  }
}

TEST_P(CastTest, OtherTypesAreAnError) {
  const DeviceTensor bytes(ctx(), DType::u8, {8}), y(ctx(), dtype(), {8});
  EXPECT_THROW(run(ctx(), [&](Stream s) { cast(s, bytes, y); }), Error);
}

INSTANTIATE_TEST_SUITE_P(Op, CastTest,
                         testing::Combine(testing::Values(Device::cpu(), Device::cuda()),
                                          testing::Values(DType::bf16, DType::f16)),
                         op_test_name);

}  // namespace
}  // namespace convolt::test
