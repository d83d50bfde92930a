#include "roofline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <opencv2/imgproc.hpp>

#include "drawing.h"

namespace convolt::cli {
namespace {

using Anchor = TextStyle::Anchor;

const cv::Scalar kUnder{255, 255, 255};
const cv::Scalar kGrid{232, 232, 232}, kFineGrid{243, 243, 243};
constexpr int kWidth = 1200, kHeight = 760, kLeft = 92, kRight = 40, kTop = 112, kBottom = 84;

// Logarithmic, from one number to another over pixels.
struct Scale {
  double low, high;
  int from, to;
  double at(double value) const { return from + (to - from) * std::log(value / low) / std::log(high / low); }
};

struct LogFrame {
  Scale x, y;
  cv::Point2d at(double intensity, double rate) const { return {x.at(intensity), y.at(rate)}; }
  cv::Rect inside() const { return {x.from, y.to, x.to - x.from, y.from - y.to}; }
};

// Decades around all points and the ridge.
LogFrame frame_of(const Roofline& r) {
  const double ridge = r.flops_per_second / r.bytes_per_second;
  double low_x = ridge / 2, high_x = ridge * 4, low_y = r.flops_per_second / 8, high_y = r.flops_per_second * 1.6;
  for (const Roofline::Series& s : r.series)
    for (const Roofline::Point& p : s.points) {
      low_x = std::min(low_x, p.intensity / 1.6);
      high_x = std::max(high_x, p.intensity * 1.6);
      low_y = std::min(low_y, p.rate / 1.6);
      high_y = std::max(high_y, p.rate * 1.6);
    }
  return {{low_x, high_x, kLeft, kWidth - kRight}, {low_y, high_y, kHeight - kBottom, kTop}};
}

// OpenCV takes fractions of pixels as whole numbers of sixteenths.
constexpr int kShift = 4;
cv::Point fine(cv::Point2d p) {
  return {static_cast<int>(std::lround(p.x * (1 << kShift))), static_cast<int>(std::lround(p.y * (1 << kShift)))};
}
void draw_line(cv::Mat& picture, cv::Point2d a, cv::Point2d b, const cv::Scalar& colour, int thickness) {
  cv::line(picture, fine(a), fine(b), colour, thickness, cv::LINE_AA, kShift);
}

// "0.01", "10", "1000" without exponents.
std::string number(double value) { return fmt::format("{:.10g}", value); }

void draw_grid(cv::Mat& picture, const LogFrame& f) {
  const auto decades = [](const Scale& s, const auto& line) {
    for (int power = static_cast<int>(std::floor(std::log10(s.low))); std::pow(10, power) < s.high; ++power)
      for (int digit = 1; digit < 10; ++digit)
        if (const double value = digit * std::pow(10, power); value > s.low && value < s.high) line(value, digit == 1);
  };
  const cv::Rect in = f.inside();
  for (const bool main : {false, true}) {
    decades(f.x, [&](double value, bool decade) {
      if (decade != main) return;
      const double x = f.x.at(value);
      draw_line(picture, {x, static_cast<double>(in.y)}, {x, static_cast<double>(in.br().y)}, main ? kGrid : kFineGrid,
                1);
      if (main)
        draw_text(picture, number(value), {static_cast<int>(x), in.br().y + 20},
                  {.colour = kInk, .anchor = Anchor::centre});
    });
    decades(f.y, [&](double value, bool decade) {
      if (decade != main) return;
      const double y = f.y.at(value);
      draw_line(picture, {static_cast<double>(in.x), y}, {static_cast<double>(in.br().x), y}, main ? kGrid : kFineGrid,
                1);
      if (main)
        draw_text(picture, number(value / 1e9), {in.x - 12, static_cast<int>(y)},
                  {.colour = kInk, .anchor = Anchor::right});
    });
  }
  draw_text(picture, "FLOP for each byte moved", {in.br().x, in.br().y + 48},
            {.colour = kFaint, .anchor = Anchor::right});
  draw_text_upwards(picture, "GFLOP/s", {24, in.y + 60}, {.colour = kFaint});
}

// The corners of the roof from left to right.
std::vector<cv::Point2d> roof_of(const Roofline& r, const LogFrame& f) {
  const double ridge = r.flops_per_second / r.bytes_per_second;
  const double first = std::max(f.x.low, f.y.low / r.bytes_per_second);
  return {f.at(first, first * r.bytes_per_second), f.at(ridge, r.flops_per_second), f.at(f.x.high, r.flops_per_second)};
}

void fill_under(cv::Mat& picture, const LogFrame& f, const std::vector<cv::Point2d>& roof) {
  std::vector<cv::Point> corners;
  for (const cv::Point2d& p : roof) corners.push_back(fine(p));
  corners.push_back(fine({static_cast<double>(f.x.to), static_cast<double>(f.y.from)}));
  corners.push_back(fine({roof[0].x, static_cast<double>(f.y.from)}));
  cv::fillPoly(picture, std::vector{corners}, kUnder, cv::LINE_AA, kShift);
}

// Texts where nothing else is: the first of some places that is free and inside the frame, or none.
class Labels {
public:
  explicit Labels(const cv::Rect& bounds) : bounds_(bounds) {}
  void take(const cv::Rect& place) { taken_.push_back(place); }
  // The places: where the text begins, half way up its capitals.
  void draw(cv::Mat& picture, const std::string& text, int height, const std::vector<cv::Point>& places) {
    const int width = text_width(text, height);
    for (const cv::Point at : places) {
      const cv::Rect place(at.x - 2, at.y - height / 2 - 3, width + 4, height + 6);
      const auto overlaps = [&](const cv::Rect& taken) { return (taken & place).area() > 0; };
      if ((place & bounds_) != place || std::any_of(taken_.begin(), taken_.end(), overlaps)) continue;
      draw_text(picture, text, at, {.height = height, .colour = kInk});
      return take(place);
    }
  }

private:
  cv::Rect bounds_;
  std::vector<cv::Rect> taken_;
};

void draw_points(cv::Mat& picture, const Roofline& r, const LogFrame& f, Labels& labels) {
  constexpr int kRadius = 9 << (kShift - 1);
  for (const Roofline::Series& s : r.series)
    for (const Roofline::Point& p : s.points) {
      const cv::Point2d at = f.at(p.intensity, p.rate);
      cv::circle(picture, fine(at), kRadius + (1 << kShift), kUnder, cv::FILLED, cv::LINE_AA, kShift);
      cv::circle(picture, fine(at), kRadius, s.colour, cv::FILLED, cv::LINE_AA, kShift);
      labels.take({static_cast<int>(at.x) - 6, static_cast<int>(at.y) - 6, 12, 12});
    }
}

// Above the roofs, where there is room along them.
void draw_roof_labels(cv::Mat& picture, const Roofline& r, const std::vector<cv::Point2d>& roof, Labels& labels) {
  constexpr int kHeightOfText = 10;
  std::vector<cv::Point> places;
  for (int x = static_cast<int>(roof[1].x) + 16; x < kWidth; x += 24)
    places.emplace_back(x, static_cast<int>(roof[1].y) - 14);
  labels.draw(picture, fmt::format("matrix product {:.0f} GFLOP/s", r.flops_per_second / 1e9), kHeightOfText, places);
  const std::string slope = fmt::format("copy {:.1f} GB/s", r.bytes_per_second / 1e9);
  places.clear();
  for (const double part : {0.5, 0.6, 0.7, 0.8, 0.9}) {
    const cv::Point2d at = roof[0] + part * (roof[1] - roof[0]);
    places.emplace_back(static_cast<int>(at.x) - 14 - text_width(slope, kHeightOfText), static_cast<int>(at.y) - 12);
  }
  labels.draw(picture, slope, kHeightOfText, places);
}

void draw_point_labels(cv::Mat& picture, const Roofline& r, const LogFrame& f, Labels& labels) {
  constexpr int kHeightOfText = 9, kAbove = 15;
  for (const Roofline::Series& s : r.series)
    for (const Roofline::Point& p : s.points) {
      if (p.label.empty()) continue;
      const cv::Point at = f.at(p.intensity, p.rate);
      const int width = text_width(p.label, kHeightOfText), right = at.x + 11, left = at.x - 11 - width;
      labels.draw(picture, p.label, kHeightOfText,
                  {{right, at.y},
                   {left, at.y},
                   {at.x - width / 2, at.y + kAbove},
                   {at.x - width / 2, at.y - kAbove},
                   {right - 3, at.y + kAbove},
                   {left + 3, at.y + kAbove},
                   {right - 3, at.y - kAbove},
                   {left + 3, at.y - kAbove}});
    }
}

void draw_legend(cv::Mat& picture, const Roofline& r) {
  int x = kLeft;
  for (const Roofline::Series& s : r.series) {
    cv::circle(picture, fine({x + 5.0, 88}), 72, s.colour, cv::FILLED, cv::LINE_AA, kShift);
    draw_text(picture, s.name, {x + 16, 88}, {.height = 10, .colour = kInk});
    x += 16 + text_width(s.name, 10) + 26;
  }
}

}  // namespace

cv::Mat draw_roofline(const Roofline& r) {
  const LogFrame f = frame_of(r);
  cv::Mat picture(kHeight, kWidth, CV_8UC3, kPaper);
  const std::vector<cv::Point2d> roof = roof_of(r, f);
  fill_under(picture, f, roof);
  draw_grid(picture, f);
  for (size_t i = 1; i < roof.size(); ++i) draw_line(picture, roof[i - 1], roof[i], kInk, 2);
  Labels labels(f.inside());
  draw_points(picture, r, f, labels);
  draw_roof_labels(picture, r, roof, labels);
  draw_point_labels(picture, r, f, labels);
  draw_legend(picture, r);
  const int room = kWidth - 2 * 24;
  draw_text(picture, fitted(drawable(r.title).value_or("roofline"), 14, room), {24, 30},
            {.height = 14, .colour = kInk});
  draw_text(picture, fitted(drawable(r.subtitle).value_or(""), 10, room), {24, 58}, {.height = 10, .colour = kFaint});
  return picture;
}

}  // namespace convolt::cli
