#include "reference/picture_jpeg.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace convolt::test {
namespace {

using Table = std::array<int, 64>;

// ITU T.81, tables K.1 and K.2, row by row.
constexpr Table kLuminance{16, 11, 10, 16, 24,  40,  51,  61,  12, 12, 14, 19, 26,  58,  60,  55,
                           14, 13, 16, 24, 40,  57,  69,  56,  14, 17, 22, 29, 51,  87,  80,  62,
                           18, 22, 37, 56, 68,  109, 103, 77,  24, 35, 55, 64, 81,  104, 113, 92,
                           49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99};
constexpr Table kChrominance{17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99,
                             99, 99, 47, 66, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
                             99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99};

// As libjpeg's jpeg_set_quality.
Table scaled(Table table, int quality) {
  const int scale = quality < 50 ? 5000 / quality : 200 - 2 * quality;
  for (int& entry : table) entry = std::clamp((entry * scale + 50) / 100, 1, 255);
  return table;
}

double basis(int position, int frequency) {
  return (frequency == 0 ? std::sqrt(0.5) : 1) * 0.5 * std::cos((2 * position + 1) * frequency * std::numbers::pi / 16);
}
const std::array<double, 64> kBasis = [] {  // [position, frequency]
  std::array<double, 64> all{};
  for (size_t i = 0; i < 64; ++i) all[i] = basis(static_cast<int>(i / 8), static_cast<int>(i % 8));
  return all;
}();

using Block = std::array<double, 64>;

// The block's samples after the DCT, quantisation and the inverse DCT; bytes.
Block coded(const Block& samples, const Table& table) {
  Block spectrum{}, result{};
  for (size_t v = 0; v < 8; ++v)
    for (size_t u = 0; u < 8; ++u) {
      double sum = 0;
      for (size_t i = 0; i < 64; ++i) sum += (samples[i] - 128) * kBasis[i / 8 * 8 + v] * kBasis[i % 8 * 8 + u];
      spectrum[v * 8 + u] = std::round(sum / table[v * 8 + u]) * table[v * 8 + u];
    }
  for (size_t y = 0; y < 8; ++y)
    for (size_t x = 0; x < 8; ++x) {
      double sum = 0;
      for (size_t i = 0; i < 64; ++i) sum += spectrum[i] * kBasis[y * 8 + i / 8] * kBasis[x * 8 + i % 8];
      result[y * 8 + x] = std::clamp(std::round(sum + 128), 0.0, 255.0);
    }
  return result;
}

struct Plane {
  int height, width;
  std::vector<int> samples;
  int& at(int x, int y) { return samples[static_cast<size_t>(y * width + x)]; }
  // Beyond the right and the lower edge the last ones are repeated.
  int repeated(int x, int y) { return at(std::min(x, width - 1), std::min(y, height - 1)); }
};

Plane empty_plane(int height, int width) {
  return {height, width, std::vector<int>(static_cast<size_t>(height) * static_cast<size_t>(width))};
}

void code(Plane& plane, const Table& table) {
  for (int top = 0; top < plane.height; top += 8)
    for (int left = 0; left < plane.width; left += 8) {
      Block block;
      for (int i = 0; i < 64; ++i) block[static_cast<size_t>(i)] = plane.repeated(left + i % 8, top + i / 8);
      block = coded(block, table);
      for (int i = 0; i < 64; ++i)
        if (left + i % 8 < plane.width && top + i / 8 < plane.height)
          plane.at(left + i % 8, top + i / 8) = static_cast<int>(block[static_cast<size_t>(i)]);
    }
}

// The plane of whole blocks whose samples are the means of 2x2, halves going down and up by columns in turn. Below an
// even number of rows the last means are repeated.
Plane halved(Plane& plane) {
  const int height = (plane.height + 15) / 16 * 8, width = (plane.width + 15) / 16 * 8;
  Plane half = empty_plane(height, width);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      int sum = 0;
      const int row = std::min(y, (plane.height + 1) / 2 - 1);
      for (int i = 0; i < 4; ++i) sum += plane.repeated(2 * x + i % 2, 2 * row + i / 2);
      half.at(x, y) = (sum + 1 + x % 2) / 4;
    }
  return half;
}

// To the nearest; in integers, for blue minus an even grey would lie on a half. Halves of colours go down.
int rounded(int64_t billionths, int64_t half = 499999999) {
  return static_cast<int>(std::clamp<int64_t>((billionths + half) / 1000000000, 0, 255));
}

// JFIF's Y, Cb and Cr, with libjpeg's digits.
std::array<int, 3> ycc_of(int64_t r, int64_t g, int64_t b) {
  const int64_t middle = 128000000000;
  return {rounded(299000000 * r + 587000000 * g + 114000000 * b, 500000000),
          rounded(middle - 168735892 * r - 331264108 * g + 500000000 * b),
          rounded(middle + 500000000 * r - 418687589 * g - 81312411 * b)};
}

}  // namespace

std::vector<double> jpeg_round_trip(const std::vector<uint8_t>& picture, int height, int width, int channels,
                                    int quality) {
  const Table luminance = scaled(kLuminance, quality), chrominance = scaled(kChrominance, quality);
  const size_t pixels = static_cast<size_t>(height) * static_cast<size_t>(width);
  if (channels == 1) {
    Plane grey{height, width, {picture.begin(), picture.end()}};
    code(grey, luminance);
    return {grey.samples.begin(), grey.samples.end()};
  }
  std::array<Plane, 3> planes;
  planes.fill(empty_plane(height, width));
  for (size_t i = 0; i < pixels; ++i) {
    const auto ycc = ycc_of(picture[3 * i], picture[3 * i + 1], picture[3 * i + 2]);
    for (size_t c = 0; c < 3; ++c) planes[c].samples[i] = ycc[c];
  }
  Plane blue = halved(planes[1]), red = halved(planes[2]);
  code(planes[0], luminance);
  code(blue, chrominance);
  code(red, chrominance);
  std::vector<double> result;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      const double luma = planes[0].at(x, y), cb = blue.at(x / 2, y / 2) - 128, cr = red.at(x / 2, y / 2) - 128;
      result.insert(result.end(), {luma + 1.402 * cr, luma - 0.344136286 * cb - 0.714136286 * cr, luma + 1.772 * cb});
    }
  return result;
}

}  // namespace convolt::test
