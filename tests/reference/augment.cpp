#include "reference/augment.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "reference/picture_ops.h"

namespace convolt::test {
namespace {

using Colour = std::array<double, 3>;  // of the output; grey uses the first

using Interpolation = AugmentOptions::Interpolation;
using Border = AugmentOptions::Border;

double triangle(double distance) { return std::max(0.0, 1 - std::fabs(distance)); }
// R. Keys's cubic with a = -1/2, expanded.
double cubic(double distance) {
  const double d = std::fabs(distance), a = -0.5;
  if (d < 1) return (a + 2) * d * d * d - (a + 3) * d * d + 1;
  return d < 2 ? a * d * d * d - 5 * a * d * d + 8 * a * d - 4 * a : 0;
}
// Moves a position into [low, high): to the outermost pixel's centre, or by walking back and forth between those
// centres.
double moved_inside(double p, double low, double high, Border border) {
  if (border == Border::constant || (p >= low && p < high)) return p;
  const double first = low + 0.5, last = high - 0.5;
  if (border == Border::edge || first == last) return std::clamp(p, first, last);
  while (p < first || p > last) p = p < first ? 2 * first - p : 2 * last - p;
  return p;
}
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
  Colour filtered(double sx, double sy, double scale_x, double scale_y, bool cut) const {
    if (output.interpolation == Interpolation::nearest)
      return in_box(sx, sy) ? pixel(static_cast<int>(std::floor(sx)), static_cast<int>(std::floor(sy))) : fill();
    const bool smooth = output.interpolation == Interpolation::bicubic;
    const auto filter = smooth ? cubic : triangle;
    const double support_x = (smooth ? 2 : 1) * scale_x, support_y = (smooth ? 2 : 1) * scale_y;
    Colour sum{};
    double whole = 0;
    for (int y = static_cast<int>(std::floor(sy - support_y)) - 1; y <= sy + support_y + 1; ++y)
      for (int x = static_cast<int>(std::floor(sx - support_x)) - 1; x <= sx + support_x + 1; ++x) {
        const bool inside = in_box(x + 0.5, y + 0.5);
        if (!inside && cut) continue;
        const double weight = filter((x + 0.5 - sx) / scale_x) * filter((y + 0.5 - sy) / scale_y);
        const Colour colour = inside ? pixel(x, y) : fill();
        for (size_t c = 0; c < 3; ++c) sum[c] += weight * colour[c];
        whole += weight;
      }
    for (double& v : sum) v /= whole;
    if (smooth)
      for (double& v : sum) v = std::clamp(v, 0.0, 1.0);
    return sum;
  }

  Colour at(int x, int y) const {
    const SampleRecord& r = sample.record;
    if (r.width == 0 || r.height == 0) return fill();
    const std::vector<double> m(r.map, r.map + 6);
    const double sx =
        moved_inside(m[0] * (x + 0.5) + m[1] * (y + 0.5) + m[2], double{r.box[0]}, double{r.box[2]}, output.border);
    const double sy =
        moved_inside(m[3] * (x + 0.5) + m[4] * (y + 0.5) + m[5], double{r.box[1]}, double{r.box[3]}, output.border);
    const double scale_x = std::max(1.0, std::hypot(m[0], m[1])), scale_y = std::max(1.0, std::hypot(m[3], m[4]));
    if (r.axis_aligned && !in_box(sx, sy)) return fill();
    return filtered(sx, sy, scale_x, scale_y, r.axis_aligned || output.border != Border::constant);
  }
};

// By HSV: A. R. Smith, SIGGRAPH 1978, the six sectors written out.
Colour hue_turned(const Colour& v, double turn) {
  const double high = *std::max_element(v.begin(), v.end()), low = *std::min_element(v.begin(), v.end());
  if (high == low) return v;
  const double red = (high - v[0]) / (high - low), green = (high - v[1]) / (high - low),
               blue = (high - v[2]) / (high - low);
  double h = v[0] == high ? blue - green : v[1] == high ? 2 + red - blue : 4 + green - red;
  h = h / 6 + turn;
  h = (h - std::floor(h)) * 6;
  const int sector = static_cast<int>(h) % 6;
  const double f = h - std::floor(h), s = (high - low) / high;
  const double p = high * (1 - s), q = high * (1 - s * f), t = high * (1 - s * (1 - f));
  const Colour sectors[] = {{high, t, p}, {q, high, p}, {p, high, t}, {p, q, high}, {t, p, high}, {high, p, q}};
  return sectors[sector];
}

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
  if (channels == 1) return;
  apply(double{r.saturation}, [](const Colour& colour) { return grey_of(colour, 3); });
  for (Colour& colour : picture) {
    if (r.hue != 0) colour = hue_turned(colour, double{r.hue});
    if (r.to_grey) colour.fill(grey_of(colour, 3));
  }
}

// In bytes.
void run(const PictureProgramme& programme, std::vector<Colour>& picture, const AugmentOutput& output) {
  const auto channels = static_cast<size_t>(output.channels);
  std::vector<uint8_t> bytes;
  for (const Colour& colour : picture)
    for (size_t c = 0; c < channels; ++c) bytes.push_back(static_cast<uint8_t>(std::floor(255 * colour[c] + 0.5)));
  bytes = run_programme(bytes, output.height, output.width, output.channels, programme,
                        {output.fill[0], output.fill[1], output.fill[2]});
  for (size_t i = 0; i < bytes.size(); ++i) picture[i / channels][i % channels] = bytes[i] / 255.0;
}

}  // namespace

std::vector<double> augment_reference(const AugmentSample& sample, const AugmentOutput& output) {
  const SampleRecord& r = sample.record;
  std::vector<Colour> picture;
  for (int y = 0; y < output.height; ++y)
    for (int x = 0; x < output.width; ++x) picture.push_back(Sampler{sample, output}.at(x, y));
  if (r.programme.count > 0) run(r.programme, picture, output);
  adjust(picture, r, output.channels);
  std::vector<double> values;
  for (int y = 0; y < output.height; ++y)
    for (int x = 0; x < output.width; ++x)
      for (size_t c = 0; c < static_cast<size_t>(output.channels); ++c) {
        const bool erased =
            x >= r.erase[0] && x < r.erase[0] + r.erase[2] && y >= r.erase[1] && y < r.erase[1] + r.erase[3];
        const double value = picture[static_cast<size_t>(y * output.width + x)][c];
        values.push_back(erased ? double{r.erase_value[c]} : (value - output.mean[c]) / output.std[c]);
      }
  return values;
}

}  // namespace convolt::test
