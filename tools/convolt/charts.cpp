#include "charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "html.h"
#include "text_table.h"

namespace convolt::cli {
namespace {

constexpr size_t kMostPoints = 500;  // more than pixels tell apart

// Means of equal runs of points.
std::vector<Point> thinned(const std::vector<Point>& points) {
  if (points.size() <= kMostPoints) return points;
  std::vector<Point> few;
  for (size_t bin = 0; bin < kMostPoints; ++bin) {
    const size_t first = bin * points.size() / kMostPoints, end = (bin + 1) * points.size() / kMostPoints;
    Point sum;
    for (size_t i = first; i < end; ++i) {
      sum.x += points[i].x;
      sum.y += points[i].y;
    }
    const auto count = static_cast<double>(end - first);
    few.push_back({sum.x / count, sum.y / count});
  }
  return few;
}

struct Range {
  double low = 0, high = 1;
  double part(double value) const { return high > low ? (value - low) / (high - low) : 0.5; }
};

Range range_of(const std::vector<Series>& series, double Point::*axis) {
  Range r{INFINITY, -INFINITY};
  for (const Series& s : series)
    for (const Point& p : s.points) {
      r.low = std::min(r.low, p.*axis);
      r.high = std::max(r.high, p.*axis);
    }
  if (r.low > r.high) return {0, 1};
  return r;
}

// Of a level line; fractions stay in 0..1.
Range around(double value, bool percent) {
  const double room = std::max(0.1 * std::abs(value), 1e-3);
  const Range r{value - room, value + room};
  return percent ? Range{std::max(0.0, r.low), std::min(1.0, r.high)} : r;
}

// Where values lie in an SVG, y upwards.
struct Frame {
  double left, top, width, height;
  Range x, y;
  double at_x(double value) const { return left + x.part(value) * width; }
  double at_y(double value) const { return top + (1 - y.part(value)) * height; }
};

std::string text_at(double x, double y, const char* anchor, const std::string& text, const std::string& more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y, anchor, more,
                     html(text));
}

std::string line_between(const char* style, double x1, double y1, double x2, double y2) {
  return fmt::format("<line class=\"{}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", style, x1, y1,
                     x2, y2);
}

std::string number(double value, bool percent) {
  return percent ? fmt::format("{:.4g} %", 100 * value) : fmt::format("{:.4g}", value);
}

std::string grid(const Frame& f, const LineChart& chart, const std::vector<double>& levels) {
  std::string svg;
  for (const double level : levels) {
    svg += line_between("grid", f.left, f.at_y(level), f.left + f.width, f.at_y(level));
    svg += text_at(f.left - 8, f.at_y(level) + 4, "end", number(level, chart.percent));
  }
  for (const double value : ticks(f.x.low, f.x.high, 6))
    if (value >= f.x.low && value <= f.x.high)
      svg += text_at(f.at_x(value), f.top + f.height + 18, "middle", fmt::format("{:g}", value));
  svg += line_between("axis", f.left, f.top + f.height, f.left + f.width, f.top + f.height);
  svg += text_at(f.left + f.width, f.top + f.height + 36, "end", chart.x_label);
  return svg;
}

std::string curve(const Frame& f, const Series& s, bool percent) {
  std::string path, dots;
  const bool marked = s.dots || s.points.size() == 1;  // a line of one point is not seen
  for (const Point& p : thinned(s.points)) {
    const double x = f.at_x(p.x), y = f.at_y(p.y);
    path += fmt::format("{}{:.1f},{:.1f}", path.empty() ? "" : " ", x, y);
    if (marked)
      dots += fmt::format(
          "<circle class=\"dot {}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.5\"><title>step {:g}: {}</title></circle>\n",
          s.style, x, y, p.x, number(p.y, percent));
  }
  return fmt::format("<polyline class=\"line {}\" points=\"{}\"/>\n{}", s.style, path, dots);
}

std::string box(const char* style, double x, double y, double width, double height, const std::string& more = "") {
  return fmt::format("<rect class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"{}/>", style, x, y,
                     width, height, more);
}

std::string turned(double x, double y) { return fmt::format(" transform=\"rotate(-90 {:.1f} {:.1f})\"", x, y); }

// Of the reliability diagram: accuracies above, numbers of samples below.
const Frame kUnitSquare{70, 10, 340, 300, {0, 1}, {0, 1}};
constexpr double kCountsTop = 366, kCountsHeight = 60;

std::string unit_grid(const Frame& f) {
  std::string svg;
  for (const double level : {0.0, 0.25, 0.5, 0.75, 1.0}) {
    svg += line_between("grid", f.left, f.at_y(level), f.left + f.width, f.at_y(level));
    svg += text_at(f.left - 8, f.at_y(level) + 4, "end", number(level, true));
    svg += text_at(f.at_x(level), f.top + f.height + 18, "middle", number(level, true));
  }
  const double middle = f.top + f.height / 2;
  return svg + text_at(f.left + f.width, f.top + f.height + 36, "end", "confidence") +
         text_at(14, middle, "middle", "accuracy", turned(14, middle));
}

std::string calibration_bar(const Frame& f, const CalibrationBin& bin, double left, double width, int64_t most) {
  if (bin.count == 0) return "";
  const double tall = kCountsHeight * static_cast<double>(bin.count) / static_cast<double>(most);
  return fmt::format("<g><title>{} pictures, confidence {:.1f} %, accuracy {:.1f} %</title>{}{}</g>\n", bin.count,
                     100 * bin.confidence, 100 * bin.accuracy,
                     box("bar", left, f.at_y(bin.accuracy), width, bin.accuracy * f.height),
                     box("bar", left, kCountsTop + kCountsHeight - tall, width, tall));
}

// One cell of a heat map at row and column, `side` wide.
std::string heat_cell(const Confusion& m, int64_t row, int64_t column, double left, double side) {
  const int64_t count = m.at(row, column);
  if (count == 0) return "";
  const double part = static_cast<double>(count) / static_cast<double>(m.row_sum(row)), shade = std::sqrt(part);
  const double x = left + static_cast<double>(column) * side, y = left + static_cast<double>(row) * side;
  const std::string number = m.classes() > kCountedClasses
                                 ? ""
                                 : text_at(x + side / 2, y + side / 2 + 4, "middle", std::to_string(count),
                                           shade > 0.55 ? " class=\"on\"" : " class=\"strong\"");
  return fmt::format("<g><title>{} taken for {}: {} ({:.1f} %)</title>{}{}</g>\n",
                     html(m.names[static_cast<size_t>(row)]), html(m.names[static_cast<size_t>(column)]), count,
                     100 * part, box("heat", x, y, side - 1, side - 1, fmt::format(" fill-opacity=\"{:.3f}\"", shade)),
                     number);
}

}  // namespace

std::vector<double> ticks(double low, double high, int count) {
  if (!(high > low)) return {low};
  const double rough = (high - low) / count, power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5, 2, 1})
    if (factor * power >= rough) step = factor * power;
  std::vector<double> values;
  const auto first = static_cast<int64_t>(std::floor(low / step + 1e-9));
  for (int64_t i = first; values.empty() || values.back() < high - 1e-9 * step; ++i)
    values.push_back(static_cast<double>(i) * step);
  return values;
}

std::string line_chart(const LineChart& chart, const std::vector<Series>& series) {
  Frame f{58, 10, 408, 190, range_of(series, &Point::x), range_of(series, &Point::y)};
  if (chart.from_zero) f.y.low = std::min(0.0, f.y.low);
  if (f.y.high == f.y.low) f.y = around(f.y.low, chart.percent);
  const std::vector<double> levels = ticks(f.y.low, f.y.high, 5);
  f.y = {levels.front(), levels.back()};
  std::string svg = "<svg viewBox=\"0 0 480 246\" role=\"img\">\n" + grid(f, chart, levels);
  for (const Series& s : series)
    if (!s.points.empty()) svg += curve(f, s, chart.percent);
  return svg + "</svg>\n";
}

std::string reliability_diagram(const Calibration& plain, const Calibration& scaled) {
  const Frame& f = kUnitSquare;
  int64_t most = 1;
  for (const CalibrationBin& bin : plain.bins) most = std::max(most, bin.count);
  std::string svg = "<svg viewBox=\"0 0 434 450\" style=\"max-width: 434px\" role=\"img\">\n" + unit_grid(f);
  const double width = f.width / static_cast<double>(plain.bins.size());
  for (size_t i = 0; i < plain.bins.size(); ++i)
    svg += calibration_bar(f, plain.bins[i], f.left + static_cast<double>(i) * width + 1, width - 2, most);
  svg += line_between("ideal", f.left, f.top + f.height, f.left + f.width, f.top);
  for (const CalibrationBin& bin : scaled.bins)
    if (bin.count > 0)
      svg += fmt::format("<circle class=\"after\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\"/>\n", f.at_x(bin.confidence),
                         f.at_y(bin.accuracy));
  const double floor = kCountsTop + kCountsHeight;
  svg += line_between("axis", f.left, floor, f.left + f.width, floor);
  svg += text_at(f.left - 8, floor, "end", "0") + text_at(f.left - 8, kCountsTop + 10, "end", std::to_string(most));
  svg += text_at(f.left, floor + 18, "start", "pictures of each confidence");
  return svg + "</svg>\n";
}

std::string heat_map(const Confusion& m) {
  constexpr size_t kLongestName = 22;
  const int64_t classes = m.classes();
  const double cell = classes <= 12 ? 48 : classes <= kCountedClasses ? 36 : 20;
  size_t longest = 4;
  std::vector<std::string> names;
  for (const std::string& name : m.names) {
    names.push_back(cut(name, kLongestName));
    longest = std::max(longest, columns_of(names.back()));
  }
  const double left = 30 + 7 * static_cast<double>(longest), side = cell * static_cast<double>(classes);
  const double end = left + side;
  std::string svg = fmt::format("<svg viewBox=\"0 0 {0} {0}\" style=\"max-width: {0}px\" role=\"img\">\n", end + 8);
  svg += text_at(left, 16, "start", "predicted") + text_at(16, end, "start", "true", turned(16, end));
  svg += box("empty", left, left, side, side) + "\n";
  for (int64_t row = 0; row < classes; ++row) {
    const double middle = left + (static_cast<double>(row) + 0.5) * cell + 4;
    const std::string& name = names[static_cast<size_t>(row)];
    svg += text_at(left - 8, middle, "end", name, " class=\"strong\"");
    svg += text_at(middle, left - 8, "start", name, " class=\"strong\"" + turned(middle, left - 8));
    for (int64_t column = 0; column < classes; ++column) svg += heat_cell(m, row, column, left, cell);
  }
  return svg + "</svg>\n";
}

}  // namespace convolt::cli
