// Drawings of a report as inline SVG; colours are those of the page (html.h).
#pragma once

#include <string>
#include <vector>

#include "confusion.h"
#include "convolt/evaluation.h"

namespace convolt::cli {

struct Point {
  double x = 0, y = 0;
};

struct Series {
  const char* style;  // "train" or "val"
  std::vector<Point> points;
  bool dots = false;  // mark each point
};

struct LineChart {
  std::string x_label;
  bool percent = false;    // y is a fraction, shown in percent
  bool from_zero = false;  // y begins at 0
};

// Empty series are left out; where all are, a chart without lines.
std::string line_chart(const LineChart& chart, const std::vector<Series>& series);

// Accuracy against confidence, bin by bin, as bars; the second as dots; how many samples there are below.
std::string reliability_diagram(const Calibration& plain, const Calibration& scaled);

// A matrix small enough for names.
std::string heat_map(const Confusion& matrix);

// The least round numbers that cover low..high, about `count` apart: {1, 2, 5} x 10^n.
std::vector<double> ticks(double low, double high, int count);

}  // namespace convolt::cli
