#include "data/shapes.h"

#include <cmath>
#include <numbers>

namespace convolt {
namespace {

using Outline = std::vector<cv::Point2d>;
constexpr double kPi = std::numbers::pi;

// Points on an arc from angle `begin` to `end`, in degrees.
Outline arc(cv::Point2d centre, double radius, double begin, double end) {
  constexpr int kSteps = 48;
  Outline points;
  for (int i = 0; i <= kSteps; ++i) {
    const double angle = (begin + (end - begin) * i / kSteps) * kPi / 180;
    points.emplace_back(centre.x + radius * std::cos(angle), centre.y + radius * std::sin(angle));
  }
  return points;
}

Outline disc(double radius) { return arc({0, 0}, radius, 0, 360); }

// Corners at the given radii in turn, the first one up.
Outline spokes(int corners, std::initializer_list<double> radii) {
  Outline points;
  for (int i = 0; i < corners; ++i) {
    const double radius = std::data(radii)[static_cast<size_t>(i) % radii.size()];
    const double angle = 2 * kPi * i / corners;
    points.emplace_back(radius * std::sin(angle), -radius * std::cos(angle));
  }
  return points;
}

Outline box(double left, double top, double right, double bottom) {
  return {{left, top}, {right, top}, {right, bottom}, {left, bottom}};
}

// A disc without the part that another disc covers.
Outline crescent() {
  constexpr double kHalf = 115;  // degrees from the middle of the back to a horn
  Outline points = arc({0, 0}, 1, 180 - kHalf, 180 + kHalf);
  const cv::Point2d horn = points.back();
  const cv::Point2d centre{0.45, 0};
  const double radius = std::hypot(horn.x - centre.x, horn.y - centre.y);
  const double angle = std::atan2(horn.y - centre.y, horn.x - centre.x) * 180 / kPi;
  const Outline inner = arc(centre, radius, angle, -360 - angle);
  points.insert(points.end(), inner.begin(), inner.end());
  return points;
}

Outline ellipse(double wide, double high) {
  Outline points = disc(1);
  for (cv::Point2d& p : points) p = {p.x * wide, p.y * high};
  return points;
}

}  // namespace

std::vector<Shape2d> all_shapes() {
  return {
      {"arrow", {{{0, -1}, {0.75, -0.1}, {0.25, -0.1}, {0.25, 0.95}, {-0.25, 0.95}, {-0.25, -0.1}, {-0.75, -0.1}}}},
      {"ell", {{{-0.55, -0.85}, {-0.1, -0.85}, {-0.1, 0.4}, {0.6, 0.4}, {0.6, 0.8}, {-0.55, 0.8}}}},
      {"tee",
       {{{-0.8, -0.6},
         {0.8, -0.6},
         {0.8, -0.15},
         {0.22, -0.15},
         {0.22, 0.9},
         {-0.22, 0.9},
         {-0.22, -0.15},
         {-0.8, -0.15}}}},
      {"triangle", {spokes(3, {1})}},
      {"square", {box(-0.7, -0.7, 0.7, 0.7)}},
      {"cross",
       {{{-0.25, -0.9},
         {0.25, -0.9},
         {0.25, -0.25},
         {0.9, -0.25},
         {0.9, 0.25},
         {0.25, 0.25},
         {0.25, 0.9},
         {-0.25, 0.9},
         {-0.25, 0.25},
         {-0.9, 0.25},
         {-0.9, -0.25},
         {-0.25, -0.25}}}},
      {"star", {spokes(10, {1, 0.42})}},
      {"crescent", {crescent()}},
      {"ring", {disc(0.9), disc(0.5)}},
      {"disc", {disc(0.85)}},
      {"zigzag",
       {{{-0.8, -0.65},
         {0.25, -0.65},
         {0.25, 0.15},
         {0.8, 0.15},
         {0.8, 0.65},
         {-0.25, 0.65},
         {-0.25, -0.15},
         {-0.8, -0.15}}}},
      {"stripes", {box(-0.75, -0.6, -0.45, 0.6), box(-0.15, -0.6, 0.15, 0.6), box(0.45, -0.6, 0.75, 0.6)}},
      {"ellipse", {ellipse(0.95, 0.4)}},
      {"half", {arc({0, 0.35}, 0.9, 180, 360)}},
      {"frame", {box(-0.7, -0.7, 0.7, 0.7), box(-0.38, -0.38, 0.38, 0.38)}},
      {"fork",
       {{{-0.7, -0.8},
         {-0.35, -0.8},
         {-0.35, -0.1},
         {0.35, -0.1},
         {0.35, -0.8},
         {0.7, -0.8},
         {0.7, 0.3},
         {0.2, 0.3},
         {0.2, 0.95},
         {-0.2, 0.95},
         {-0.2, 0.3},
         {-0.7, 0.3}}}},
  };
}

}  // namespace convolt
