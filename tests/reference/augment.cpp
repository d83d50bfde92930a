#include "reference/augment.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace convolt::test {
namespace {

using Colour = std::array<double, 3>;  // of the output; grey uses the first

double triangle(double distance) { return std::max(0.0, 1 - std::fabs(distance)); }
double grey_of(const Colour& colour, int channels) {
  return channels == 1 ? colour[0] : 0.2989 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2];
}

struct Sampler {
  const AugmentSample& sample;
  const AugmentOutput& output;

  Colour fill() const { return {output.fill[0], output.fill[1], output.fill[2]}; }
  bool in_box(double x, double y) const {
    const float* box = sample.record.box;
    return x >= double{box[0]} && y >= double{box[1]} && x < double{box[2]} && y < double{box[3]};
  }
  Colour pixel(int x, int y) const {
    const SampleRecord& r = sample.record;
    const uint8_t* p = sample.picture.data() + (int64_t{y} * r.width + x) * r.channels;
    if (r.channels == 1) return {p[0] / 255.0, p[0] / 255.0, p[0] / 255.0};
    const Colour rgb{p[0] / 255.0, p[1] / 255.0, p[2] / 255.0};
    if (output.channels == 3) return rgb;
    return {grey_of(rgb, 3), 0, 0};
  }

  // The weighted mean of the pixels of a region around (sx, sy), `in` those of the box only or with fill for the
  // others.
  Colour filtered(double sx, double sy, double support_x, double support_y, bool cut) const {
    Colour sum{};
    double whole = 0;
    for (int y = static_cast<int>(std::floor(sy - support_y)) - 1; y <= sy + support_y + 1; ++y)
      for (int x = static_cast<int>(std::floor(sx - support_x)) - 1; x <= sx + support_x + 1; ++x) {
        const bool inside = in_box(x + 0.5, y + 0.5);
        if (!inside && cut) continue;
        const double weight = triangle((x + 0.5 - sx) / support_x) * triangle((y + 0.5 - sy) / support_y);
        const Colour colour = inside ? pixel(x, y) : fill();
        for (size_t c = 0; c < 3; ++c) sum[c] += weight * colour[c];
        whole += weight;
      }
    for (double& v : sum) v /= whole;
    return sum;
  }

  Colour at(int x, int y) const {
    const SampleRecord& r = sample.record;
    if (r.width == 0 || r.height == 0) return fill();
    const std::vector<double> m(r.map, r.map + 6);
    const double sx = m[0] * (x + 0.5) + m[1] * (y + 0.5) + m[2], sy = m[3] * (x + 0.5) + m[4] * (y + 0.5) + m[5];
    const double support_x = std::max(1.0, std::hypot(m[0], m[1])), support_y = std::max(1.0, std::hypot(m[3], m[4]));
    if (r.axis_aligned && !in_box(sx, sy)) return fill();
    return filtered(sx, sy, support_x, support_y, r.axis_aligned);
  }
};

double blended(double value, double other, double factor) {
  return std::clamp(factor * value + (1 - factor) * other, 0.0, 1.0);
}

// torchvision's adjust_brightness, adjust_contrast, adjust_saturation of the whole picture, one after another.
void adjust(std::vector<Colour>& picture, const SampleRecord& r, int channels) {
  const auto apply = [&](double factor, auto other) {
    if (factor == 1) return;
    for (Colour& colour : picture) {
      const double to = other(colour);
      for (double& v : colour) v = blended(v, to, factor);
    }
  };
  apply(double{r.brightness}, [](const Colour&) { return 0.0; });
  double mean = 0;
  for (const Colour& colour : picture) mean += grey_of(colour, channels) / static_cast<double>(picture.size());
  apply(double{r.contrast}, [&](const Colour&) { return mean; });
  if (channels == 3) apply(double{r.saturation}, [](const Colour& colour) { return grey_of(colour, 3); });
}

}  // namespace

std::vector<double> augment_reference(const AugmentSample& sample, const AugmentOutput& output) {
  const SampleRecord& r = sample.record;
  std::vector<Colour> picture;
  for (int y = 0; y < output.height; ++y)
    for (int x = 0; x < output.width; ++x) picture.push_back(Sampler{sample, output}.at(x, y));
  adjust(picture, r, output.channels);
  std::vector<double> values;
  for (int y = 0; y < output.height; ++y)
    for (int x = 0; x < output.width; ++x)
      for (size_t c = 0; c < static_cast<size_t>(output.channels); ++c) {
        const bool erased =
            x >= r.erase[0] && x < r.erase[0] + r.erase[2] && y >= r.erase[1] && y < r.erase[1] + r.erase[3];
        const double value = picture[static_cast<size_t>(y * output.width + x)][c];
        values.push_back(erased ? 0 : (value - output.mean[c]) / output.std[c]);
      }
  return values;
}

}  // namespace convolt::test
