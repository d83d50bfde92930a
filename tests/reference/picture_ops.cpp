#include "reference/picture_ops.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "core/philox.h"
#include "reference/picture_jpeg.h"

namespace convolt::test {
namespace {

using Values = std::vector<double>;  // [height, width, channels], in levels of a byte

struct Picture {
  int height, width, channels;
  std::vector<uint8_t> bytes;
  uint8_t at(int x, int y, int c) const { return bytes[static_cast<size_t>((y * width + x) * channels + c)]; }
  bool has(int x, int y) const { return x >= 0 && y >= 0 && x < width && y < height; }
};

using Byte = std::function<double(int x, int y, int c)>;

Values each(const Picture& picture, const Byte& value) {
  Values all;
  for (int y = 0; y < picture.height; ++y)
    for (int x = 0; x < picture.width; ++x)
      for (int c = 0; c < picture.channels; ++c) all.push_back(value(x, y, c));
  return all;
}

Values each_byte(const Picture& picture, const std::function<double(int v)>& value) {
  return each(picture, [&](int x, int y, int c) { return value(picture.at(x, y, c)); });
}

double to_256ths(double value) { return std::nearbyint(value * 256) / 256; }

double rounded(double exact, PictureOp op) {
  return std::clamp(rounds_down(op) ? std::floor(exact) : std::nearbyint(exact), 0.0, 255.0);
}

// In integers: the sum itself may be one.
int floor_of_luma(const Picture& p, int x, int y) {
  return (2989 * p.at(x, y, 0) + 5870 * p.at(x, y, 1) + 1140 * p.at(x, y, 2)) / 10000;
}

Values contrast(const Picture& picture, double a) {
  double sum = 0;
  for (int y = 0; y < picture.height; ++y)
    for (int x = 0; x < picture.width; ++x)
      sum += picture.channels == 1 ? picture.at(x, y, 0) : floor_of_luma(picture, x, y);
  const double mean = sum / picture.height / picture.width;
  return each_byte(picture, [&](int v) { return a * v + (1 - a) * mean; });
}

Values saturation(const Picture& picture, double a) {
  return each(picture, [&](int x, int y, int c) -> double {
    const int v = picture.at(x, y, c);
    return picture.channels == 1 ? v : a * v + (1 - a) * floor_of_luma(picture, x, y);
  });
}

Values sharpness(const Picture& picture, double a) {
  return each(picture, [&](int x, int y, int c) -> double {
    const int v = picture.at(x, y, c);
    if (x == 0 || y == 0 || x == picture.width - 1 || y == picture.height - 1) return v;
    double sum = 4 * v;
    for (int i = 0; i < 9; ++i) sum += picture.at(x - 1 + i % 3, y - 1 + i / 3, c);
    return v + (1 - a) * (std::nearbyint(sum / 13) - v);
  });
}

using Levels = std::array<double, 256>;  // what becomes of each byte

// `levels` of the counts of each byte, for each channel on its own.
Values by_counts(const Picture& picture, const std::function<Levels(const std::array<int, 256>&)>& levels) {
  std::array<std::array<int, 256>, 3> counts{};
  for (size_t i = 0; i < picture.bytes.size(); ++i)
    ++counts[i % static_cast<size_t>(picture.channels)][picture.bytes[i]];
  std::array<Levels, 3> tables;
  for (size_t c = 0; c < 3; ++c) tables[c] = levels(counts[c]);
  return each(picture, [&](int x, int y, int c) { return tables[static_cast<size_t>(c)][picture.at(x, y, c)]; });
}

Levels stretched(const std::array<int, 256>& counts) {
  int least = 0, most = 255;
  while (least < 255 && counts[static_cast<size_t>(least)] == 0) ++least;
  while (most > 0 && counts[static_cast<size_t>(most)] == 0) --most;
  Levels levels;
  for (int v = 0; v < 256; ++v)
    levels[static_cast<size_t>(v)] = least == most ? v : (v - least) * 255.0 / (most - least);
  return levels;
}

// PIL/ImageOps.py, equalize.
Levels equalised(const std::array<int, 256>& counts) {
  std::vector<int> present;
  int all = 0;
  for (const int count : counts) {
    if (count > 0) present.push_back(count);
    all += count;
  }
  const int step = present.size() <= 1 ? 0 : (all - present.back()) / 255;
  Levels levels;
  int n = step / 2;
  for (size_t v = 0; v < 256; ++v) {
    levels[v] = step == 0 ? static_cast<double>(v) : std::min(n / step, 255);
    n += counts[v];
  }
  return levels;
}

int mirrored(int position, int size) {
  if (size == 1) return 0;
  while (position < 0 || position >= size) position = position < 0 ? -position : 2 * (size - 1) - position;
  return position;
}

Values blur(const Picture& picture, double deviation, int radius) {
  const auto [height, width, channels, bytes] = picture;
  const auto smoothed = [&](const std::function<double(int offset)>& value) {
    double sum = 0, whole = 0;
    for (int i = -radius; i <= radius; ++i) {
      const double weight = std::exp(-i * i / (2 * deviation * deviation));
      sum += weight * value(i);
      whole += weight;
    }
    return sum / whole;
  };
  const Values rows = each(picture, [&, w = width](int x, int y, int c) {
    return to_256ths(smoothed([&](int i) { return picture.at(mirrored(x + i, w), y, c); }));
  });
  return each(picture, [&, h = height, w = width, ch = channels](int x, int y, int c) {
    return smoothed([&](int i) { return rows[static_cast<size_t>((mirrored(y + i, h) * w + x) * ch + c)]; });
  });
}

// By Box and Muller.
double normal(const Philox4& words, int channel) {
  const int pair = channel / 2;
  const double radius = std::sqrt(-2 * std::log(1 - double{uniform(words.v[2 * pair])}));
  const double angle = 2 * std::numbers::pi * double{uniform(words.v[2 * pair + 1])};
  return radius * (channel % 2 == 0 ? std::cos(angle) : std::sin(angle));
}

uint64_t stream(PictureOp op) { return static_cast<uint64_t>(op); }  // the "op" of philox(key, _, op)

Values noise(const Picture& picture, double a, uint64_t key) {
  return each(picture, [&](int x, int y, int c) {
    const auto pixel = static_cast<uint64_t>(y * picture.width + x);
    return picture.at(x, y, c) + a * normal(philox(key, pixel, stream(PictureOp::noise)), c);
  });
}

struct Position {
  double x, y;
};

Values taken_from(const Picture& picture, const std::array<double, 3>& fill,
                  const std::function<Position(double x, double y)>& source) {
  return each(picture, [&](int x, int y, int c) {
    const double outside = std::round(255 * fill[static_cast<size_t>(c)]);
    const Position p = source(x + 0.5, y + 0.5);
    if (!(std::fabs(p.x) < 1e6 && std::fabs(p.y) < 1e6)) return outside;
    const int left = static_cast<int>(std::floor(p.x - 0.5)), top = static_cast<int>(std::floor(p.y - 0.5));
    double sum = 0;
    for (int j = top; j <= top + 1; ++j)
      for (int i = left; i <= left + 1; ++i) {
        const double weight = (1 - std::fabs(p.x - 0.5 - i)) * (1 - std::fabs(p.y - 0.5 - j));
        sum += weight * (picture.has(i, j) ? picture.at(i, j, c) : outside);
      }
    return sum;
  });
}

// The uniform cubic B-spline of this knot, at a distance from it.
double spline(double distance) {
  const double d = std::fabs(distance);
  if (d < 1) return (4 - 6 * d * d + 3 * d * d * d) / 6;
  return d < 2 ? (2 - d) * (2 - d) * (2 - d) / 6 : 0;
}

// Knot (i, j) lies at (i - 1, j - 1) times `distance` from the first pixel's centre.
Position elastic(Position at, double reach, double distance, uint64_t key) {
  const double x = (at.x - 0.5) / distance, y = (at.y - 0.5) / distance;
  Position shift{0, 0};
  for (int j = 0; j <= std::floor(y) + 3; ++j)
    for (int i = 0; i <= std::floor(x) + 3; ++i) {
      const auto words = philox(key, static_cast<uint64_t>(j * kMostKnots + i), stream(PictureOp::elastic));
      const double weight = spline(x - (i - 1)) * spline(y - (j - 1));
      shift.x += weight * (2 * double{uniform(words.v[0])} - 1);
      shift.y += weight * (2 * double{uniform(words.v[1])} - 1);
    }
  return {at.x + reach * shift.x, at.y + reach * shift.y};
}

Position perspective(Position p, const float* map) {
  const double w = map[6] * p.x + map[7] * p.y + 1;
  return {(map[0] * p.x + map[1] * p.y + map[2]) / w, (map[3] * p.x + map[4] * p.y + map[5]) / w};
}

Position source_of(Position p, const Picture& picture, const PictureStep& step, const PictureProgramme& programme) {
  const double a = step.a, b = step.b, dx = p.x - picture.width / 2.0, dy = p.y - picture.height / 2.0;
  switch (step.op) {
    case PictureOp::shear_x:
      return {p.x + a * p.y, p.y};
    case PictureOp::shear_y:
      return {p.x, p.y + a * p.x};
    case PictureOp::translate:
      return {p.x - a, p.y - b};
    case PictureOp::rotate:
      return {p.x - dx + a * dx - b * dy, p.y - dy + b * dx + a * dy};
    case PictureOp::perspective:
      return perspective(p, programme.map);
    default:
      return elastic(p, a, b, programme.key);
  }
}

Values of_pixels(const Picture& picture, const PictureStep& step) {
  const double a = step.a, b = step.b;
  switch (step.op) {
    case PictureOp::brightness:
      return each_byte(picture, [&](int v) { return a * v; });
    case PictureOp::invert:
      return each_byte(picture, [](int v) { return 255 - v; });
    case PictureOp::solarize:
      return each_byte(picture, [&](int v) { return v >= a ? 255 - v : v; });
    case PictureOp::solarize_add:
      return each_byte(picture, [&](int v) { return v < b ? v + a : v; });
    default: {
      const int low = 1 << (8 - static_cast<int>(a));
      return each_byte(picture, [&](int v) { return v / low * low; });
    }
  }
}

Values after(const Picture& picture, const PictureStep& step, const PictureProgramme& programme,
             const std::array<double, 3>& fill) {
  const double a = step.a;
  switch (step.op) {
    case PictureOp::contrast:
      return contrast(picture, a);
    case PictureOp::saturation:
      return saturation(picture, a);
    case PictureOp::sharpness:
      return sharpness(picture, a);
    case PictureOp::auto_contrast:
      return by_counts(picture, stretched);
    case PictureOp::equalize:
      return by_counts(picture, equalised);
    case PictureOp::blur:
      return blur(picture, a, static_cast<int>(step.b));
    case PictureOp::noise:
      return noise(picture, a, programme.key);
    case PictureOp::jpeg:
      return jpeg_round_trip(picture.bytes, picture.height, picture.width, picture.channels, static_cast<int>(a));
    case PictureOp::shear_x:
    case PictureOp::shear_y:
    case PictureOp::translate:
    case PictureOp::rotate:
    case PictureOp::perspective:
    case PictureOp::elastic:
      return taken_from(picture, fill, [&](double x, double y) { return source_of({x, y}, picture, step, programme); });
    default:
      return of_pixels(picture, step);
  }
}

// The picture that a programme remembers, and the sum of its chains so far.
struct Mixture {
  std::vector<uint8_t> kept;
  Values sum;

  void add(const Picture& picture, double weight, bool first) {
    if (first) sum.assign(picture.bytes.size(), 0);
    for (size_t i = 0; i < sum.size(); ++i)
      sum[i] = std::clamp(to_256ths(sum[i] + weight * picture.bytes[i]), 0.0, 255.0);
  }
  Values with_kept(double weight) const {
    Values all = sum;
    for (size_t i = 0; i < all.size(); ++i) all[i] += weight * kept[i];
    return all;
  }
};

}  // namespace

bool rounds_down(PictureOp op) {
  return op == PictureOp::brightness || op == PictureOp::contrast || op == PictureOp::saturation ||
         op == PictureOp::sharpness || op == PictureOp::auto_contrast || op == PictureOp::mix;
}

bool may_become(double exact, uint8_t byte, PictureOp op, double slack) {
  return byte >= rounded(exact - slack, op) && byte <= rounded(exact + slack, op);
}

std::vector<uint8_t> run_programme(std::vector<uint8_t> bytes, int height, int width, int channels,
                                   const PictureProgramme& programme, const std::array<double, 3>& fill,
                                   std::vector<double>* exact) {
  Picture picture{height, width, channels, std::move(bytes)};
  Mixture mixture;
  Values values{picture.bytes.begin(), picture.bytes.end()};
  for (int i = 0; i < programme.count; ++i) {
    const PictureStep& step = programme.steps[i];
    if (step.op == PictureOp::keep) mixture.kept = picture.bytes;
    if (step.op == PictureOp::end_chain) {
      mixture.add(picture, step.a, step.b == 0);
      picture.bytes = mixture.kept;
    }
    if (step.op == PictureOp::keep || step.op == PictureOp::end_chain)
      values.assign(picture.bytes.begin(), picture.bytes.end());
    else
      values = step.op == PictureOp::mix ? mixture.with_kept(step.a) : after(picture, step, programme, fill);
    for (size_t k = 0; k < values.size(); ++k) picture.bytes[k] = static_cast<uint8_t>(rounded(values[k], step.op));
  }
  if (exact != nullptr) *exact = values;
  return picture.bytes;
}

}  // namespace convolt::test
