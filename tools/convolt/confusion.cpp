#include "confusion.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <opencv2/imgproc.hpp>

#include "convolt/error.h"
#include "drawing.h"
#include "io/atomic_file.h"
#include "io/csv.h"
#include "text_table.h"

namespace convolt::cli {
namespace {

constexpr int64_t kMostDrawn = 4096;

std::string csv_of(const Confusion& m) {
  std::string text = "true \\ predicted";
  for (const std::string& name : m.names) text += "," + csv_field(name);
  for (int64_t row = 0; row < m.classes(); ++row) {
    text += "\n" + csv_field(m.names[static_cast<size_t>(row)]);
    for (int64_t column = 0; column < m.classes(); ++column) text += fmt::format(",{}", m.at(row, column));
  }
  return text + "\n";
}

std::string text_of(const Confusion& m) {
  constexpr size_t kRowName = 32, kColumnName = 12;
  TextTable table;
  std::vector<std::string> head{"true \\ predicted"};
  for (const std::string& name : m.names) head.push_back(cut(name, kColumnName));
  table.row(std::move(head));
  for (int64_t row = 0; row < m.classes(); ++row) {
    std::vector<std::string> cells{cut(m.names[static_cast<size_t>(row)], kRowName)};
    for (int64_t column = 0; column < m.classes(); ++column)  // a dot for nothing: what there is stands out
      cells.push_back(m.at(row, column) == 0 ? "." : std::to_string(m.at(row, column)));
    table.row(std::move(cells));
  }
  return table.text();
}

// White to dark blue; the square root lets a few confusions be seen beside a full diagonal.
cv::Scalar heat(double part) {
  constexpr double kStops[][3] = {{255, 251, 247}, {239, 219, 198}, {214, 174, 107}, {181, 113, 33}, {107, 48, 8}};
  constexpr int kLast = 4;
  const double at = std::sqrt(std::clamp(part, 0.0, 1.0)) * kLast;
  const int low = std::min(static_cast<int>(at), kLast - 1);
  cv::Scalar colour;
  for (int c = 0; c < 3; ++c) colour[c] = std::lerp(kStops[low][c], kStops[low + 1][c], at - low);
  return colour;
}

const cv::Scalar kWhite{255, 255, 255}, kNothing{232, 232, 232};

// Where things lie, in pixels.
struct Layout {
  int cell, letters;                // side of a cell; height of the names' capitals, 0 for numbered axes
  int left, top;                    // of the matrix
  int side;                         // of the matrix
  int width, height;                // of the picture
  std::vector<std::string> labels;  // names as they are drawn
};

int cell_side(int64_t classes) {
  if (classes <= 12) return 56;
  if (classes <= kCountedClasses) return 44;
  if (classes <= kNamedClasses) return 20;
  return static_cast<int>(std::max<int64_t>(1, 1200 / classes));
}

Layout lay_out(const Confusion& m) {
  constexpr int kTitle = 44, kAxisName = 36, kLegend = 116, kMargin = 24, kLongestName = 190, kNumbers = 52;
  Layout l;
  l.cell = cell_side(m.classes());
  l.letters = m.classes() > kNamedClasses ? 0 : m.classes() > kCountedClasses ? 9 : 11;
  int names = kNumbers;
  if (l.letters > 0) {
    names = 0;
    for (size_t i = 0; i < m.names.size(); ++i) {
      const std::string name = drawable(m.names[i]).value_or(fmt::format("class {}", i));
      l.labels.push_back(fitted(name, l.letters, kLongestName));
      names = std::max(names, text_width(l.labels.back(), l.letters) + 12);
    }
  }
  l.side = static_cast<int>(m.classes()) * l.cell;
  l.left = kAxisName + names;
  l.top = kTitle + kAxisName + names;
  l.width = l.left + std::max(l.side, 220) + kLegend;
  l.height = l.top + std::max(l.side, 220) + kMargin;
  return l;
}

void draw_cells(cv::Mat& picture, const Layout& l, const Confusion& m) {
  const int gap = l.cell >= 8 ? 1 : 0;
  for (int64_t row = 0; row < m.classes(); ++row) {
    const int64_t sum = m.row_sum(row);
    for (int64_t column = 0; column < m.classes(); ++column) {
      const int64_t count = m.at(row, column);
      const double part = sum == 0 ? 0 : static_cast<double>(count) / static_cast<double>(sum);
      const cv::Rect box(l.left + static_cast<int>(column) * l.cell, l.top + static_cast<int>(row) * l.cell,
                         l.cell - gap, l.cell - gap);
      cv::rectangle(picture, box, sum == 0 ? kNothing : heat(part), cv::FILLED);
      if (m.classes() > kCountedClasses || count == 0) continue;
      const std::string text = std::to_string(count);
      int height = 11;
      while (height > 6 && text_width(text, height) > l.cell - 6) --height;
      draw_text(picture, text, {box.x + box.width / 2, box.y + box.height / 2},
                {.height = height, .colour = part > 0.3 ? kWhite : kInk, .anchor = TextStyle::Anchor::centre});
    }
  }
}

// Class numbers at round distances, for matrices too large for names.
void draw_numbers(cv::Mat& picture, const Layout& l, int64_t classes) {
  constexpr int kApart = 60;
  int64_t every = 1;
  for (int64_t factor = 10; every * l.cell < kApart; factor *= 10)
    for (const int64_t step : {factor / 10, factor / 5, factor / 2, factor})
      if (every * l.cell < kApart) every = step;
  for (int64_t i = 0; i < classes; i += every) {
    const int at = static_cast<int>(i) * l.cell + l.cell / 2;
    const std::string number = std::to_string(i);
    draw_text(picture, number, {l.left - 10, l.top + at}, {.colour = kInk, .anchor = TextStyle::Anchor::right});
    draw_text_upwards(picture, number, {l.left + at, l.top - 10}, {.colour = kInk});
    cv::line(picture, {l.left - 6, l.top + at}, {l.left - 2, l.top + at}, kFaint);
    cv::line(picture, {l.left + at, l.top - 6}, {l.left + at, l.top - 2}, kFaint);
  }
}

void draw_names(cv::Mat& picture, const Layout& l) {
  for (size_t i = 0; i < l.labels.size(); ++i) {
    const int at = static_cast<int>(i) * l.cell + l.cell / 2;
    draw_text(picture, l.labels[i], {l.left - 8, l.top + at},
              {.height = l.letters, .colour = kInk, .anchor = TextStyle::Anchor::right});
    draw_text_upwards(picture, l.labels[i], {l.left + at, l.top - 8}, {.height = l.letters, .colour = kInk});
  }
}

void draw_legend(cv::Mat& picture, const Layout& l) {
  constexpr int kHeight = 180, kWidth = 14;
  const int x = l.left + l.side + 28, y = l.top + 16;
  draw_text(picture, "of the row", {x, y - 20}, {.height = 9, .colour = kFaint});
  for (int i = 0; i < kHeight; ++i) {
    const double part = std::pow(1 - i / static_cast<double>(kHeight - 1), 2);
    cv::line(picture, {x, y + i}, {x + kWidth, y + i}, heat(part));
  }
  for (const int percent : {0, 2, 10, 25, 50, 100}) {
    const int at = y + static_cast<int>(std::lround((kHeight - 1) * (1 - std::sqrt(percent / 100.0))));
    draw_text(picture, fmt::format("{} %", percent), {x + kWidth + 8, at}, {.height = 9, .colour = kInk});
  }
}

}  // namespace

int64_t Confusion::row_sum(int64_t row) const {
  const auto first = counts.begin() + row * classes();
  return std::accumulate(first, first + classes(), int64_t{0});
}

void check_confusion_path(const std::string& path, int64_t classes) {
  const std::string end = std::filesystem::path(path).extension().string();
  if (end != ".txt" && end != ".csv" && end != ".png")
    throw UsageError("--confusion '" + path + "': expected a name that ends in .txt, .csv or .png");
  if (end == ".png" && classes > kMostDrawn)
    throw UsageError(fmt::format("--confusion '{}': a picture shows up to {} classes, the network has {}; write a .csv",
                                 path, kMostDrawn, classes));
}

void write_confusion(const std::string& path, const Confusion& matrix, const std::string& title) {
  if (path.ends_with(".png")) return write_png(path, draw_confusion(matrix, title));
  AtomicFile file(path);
  file.write(path.ends_with(".csv") ? csv_of(matrix) : text_of(matrix));
  file.commit();
}

cv::Mat draw_confusion(const Confusion& matrix, const std::string& title) {
  const Layout l = lay_out(matrix);
  cv::Mat picture(l.height, l.width, CV_8UC3, kWhite);
  draw_cells(picture, l, matrix);
  if (l.letters > 0)
    draw_names(picture, l);
  else
    draw_numbers(picture, l, matrix.classes());
  draw_legend(picture, l);
  const std::string shown = fitted(drawable(title).value_or("confusion matrix"), 13, l.width - 48);
  draw_text(picture, shown, {24, 28}, {.height = 13, .colour = kInk});
  draw_text(picture, "predicted", {l.left, 62}, {.colour = kFaint});
  draw_text_upwards(picture, "true", {20, l.top + l.side}, {.colour = kFaint});
  return picture;
}

}  // namespace convolt::cli
