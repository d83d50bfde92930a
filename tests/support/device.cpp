#include "support/device.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "core/philox.h"

namespace convolt::test {
namespace {

constexpr int64_t kGuard = 256;
constexpr unsigned char kGuardByte = 0xC7;

// The oracle's own conversions, by arithmetic on doubles: independent of the bit tricks in kernels/exec/types.h.
double round_to_significant(double value, int bits, int min_exponent) {
  if (value == 0 || !std::isfinite(value)) return value;
  int exponent = 0;
  std::frexp(value, &exponent);
  const double unit = std::ldexp(1.0, std::max(exponent, min_exponent) - bits);
  return std::nearbyint(value / unit) * unit;
}

uint16_t encode16(double value, DType dtype) {
  const int fraction = dtype == DType::bf16 ? 7 : 10, bias = dtype == DType::bf16 ? 127 : 15;
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const auto infinity = static_cast<uint16_t>(((2 * bias + 1) << fraction));
  if (std::isnan(value)) return static_cast<uint16_t>(sign | infinity | (1 << (fraction - 1)));
  value = std::fabs(rounded(value, dtype));
  if (std::isinf(value)) return sign | infinity;
  if (value == 0) return sign;
  int exponent = 0;
  std::frexp(value, &exponent);
  const int stored = std::max(exponent - 1 + bias, 0);
  const double unit = std::ldexp(1.0, std::max(exponent - 1, 1 - bias) - fraction);
  const auto digits = static_cast<int>(value / unit);
  return static_cast<uint16_t>(sign | (stored == 0 ? digits : (stored << fraction) | (digits & ((1 << fraction) - 1))));
}

double decode16(uint16_t bits, DType dtype) {
  const int fraction = dtype == DType::bf16 ? 7 : 10, bias = dtype == DType::bf16 ? 127 : 15;
  const int stored = (bits & 0x7fff) >> fraction, digits = bits & ((1 << fraction) - 1);
  double value = 0;
  if (stored == 2 * bias + 1)
    value = digits ? std::nan("") : INFINITY;
  else
    value = stored == 0 ? std::ldexp(digits, 1 - bias - fraction)
                        : std::ldexp(digits + (1 << fraction), stored - bias - fraction);
  return bits & 0x8000 ? -value : value;
}

}  // namespace

double rounded(double value, DType dtype) {
  switch (dtype) {
    case DType::f32:
      return static_cast<float>(value);
    case DType::bf16:
      return std::fabs(value) >= 0x1.ffp127 ? std::copysign(INFINITY, value) : round_to_significant(value, 8, -125);
    case DType::f16:
      return std::fabs(value) >= 65520 ? std::copysign(INFINITY, value) : round_to_significant(value, 11, -13);
    default:
      return std::nearbyint(value);
  }
}

double epsilon(DType dtype) { return dtype == DType::f32 ? 0x1p-24 : dtype == DType::bf16 ? 0x1p-8 : 0x1p-11; }

DeviceTensor::DeviceTensor(Context& context, DType dtype, Shape shape)
    : context_(&context),
      buffer_(context, shape.elements() * size_of(dtype) + 2 * kGuard),
      tensor_{dtype, shape, nullptr} {
  tensor_.data = buffer_.as<char>() + kGuard;
  std::vector<unsigned char> host(static_cast<size_t>(buffer_.bytes()), kGuardByte);
  context.compute().copy(buffer_.data(), host.data(), buffer_.bytes());
  context.compute().synchronize();
}

DeviceTensor::DeviceTensor(Context& context, DType dtype, Shape shape, const std::vector<double>& values)
    : DeviceTensor(context, dtype, shape) {
  set(values);
}

void DeviceTensor::set(const std::vector<double>& values) {
  ASSERT_EQ(static_cast<int64_t>(values.size()), tensor_.elements());
  std::vector<char> host(static_cast<size_t>(tensor_.bytes()));
  for (size_t i = 0; i < values.size(); ++i) {
    const auto store = [&](auto v) { std::memcpy(host.data() + i * sizeof v, &v, sizeof v); };
    switch (tensor_.dtype) {
      case DType::f32:
        store(static_cast<float>(values[i]));
        break;
      case DType::bf16:
      case DType::f16:
        store(encode16(values[i], tensor_.dtype));
        break;
      case DType::u8:
        store(static_cast<uint8_t>(values[i]));
        break;
      case DType::i32:
        store(static_cast<int32_t>(values[i]));
        break;
    }
  }
  context_->compute().copy(tensor_.data, host.data(), tensor_.bytes());
  context_->compute().synchronize();
}

std::vector<double> DeviceTensor::values() const {
  std::vector<char> host(static_cast<size_t>(tensor_.bytes()));
  context_->compute().copy(host.data(), tensor_.data, tensor_.bytes());
  context_->compute().synchronize();
  std::vector<double> values(static_cast<size_t>(tensor_.elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    const auto load = [&](auto v) {
      std::memcpy(&v, host.data() + i * sizeof v, sizeof v);
      return v;
    };
    switch (tensor_.dtype) {
      case DType::f32:
        values[i] = static_cast<double>(load(0.F));
        break;
      case DType::bf16:
      case DType::f16:
        values[i] = decode16(load(uint16_t{}), tensor_.dtype);
        break;
      case DType::u8:
        values[i] = load(uint8_t{});
        break;
      case DType::i32:
        values[i] = load(int32_t{});
        break;
    }
  }
  return values;
}

void DeviceTensor::check_guards() const {
  std::vector<unsigned char> host(static_cast<size_t>(buffer_.bytes()));
  context_->compute().copy(host.data(), buffer_.data(), buffer_.bytes());
  context_->compute().synchronize();
  for (int64_t i = 0; i < kGuard; ++i) {
    ASSERT_EQ(host[static_cast<size_t>(i)], kGuardByte) << "written " << kGuard - i << " bytes before a tensor";
    ASSERT_EQ(host[static_cast<size_t>(kGuard + tensor_.bytes() + i)], kGuardByte)
        << "written " << i << " bytes after a tensor";
  }
}

void run(Context& context, const std::function<void(Stream)>& work) {
  context.compute().run(work);
  context.compute().synchronize();
}

std::vector<double> random_values(int64_t n, uint64_t seed, double low, double high) {
  std::vector<double> values(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    const Philox4 r = philox(seed, static_cast<uint64_t>(i), 0);
    values[static_cast<size_t>(i)] = low + (high - low) * static_cast<double>(uniform(r.v[0]));
  }
  return values;
}

namespace {

// Ended with the tests: at the end of the program NVIDIA's libraries may be gone before the contexts that use them.
class Contexts : public testing::Environment {
public:
  void TearDown() override { by_name.clear(); }
  std::map<std::string, std::unique_ptr<Context>> by_name;
};
auto* const contexts = static_cast<Contexts*>(testing::AddGlobalTestEnvironment(new Contexts));

}  // namespace

Context& context_of(Device device) {
  auto& context = contexts->by_name[device.to_string()];
  if (!context) context = Context::create(device);
  return *context;
}

void expect_near(const std::vector<double>& found, const std::vector<double>& expected, double absolute,
                 double relative, const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  double worst = 0;
  size_t where = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const bool same = found[i] == expected[i] || (std::isnan(found[i]) && std::isnan(expected[i]));
    const double excess = same ? 0 : std::fabs(found[i] - expected[i]) / (absolute + relative * std::fabs(expected[i]));
    if (std::isnan(excess) || excess > worst) {
      worst = std::isnan(excess) ? INFINITY : excess;
      where = i;
    }
  }
  EXPECT_LE(worst, 1) << what << "[" << where << "]: found " << (found.empty() ? 0 : found[where]) << ", expected "
                      << (expected.empty() ? 0 : expected[where]) << ", " << worst << " times the tolerance";
}

}  // namespace convolt::test
