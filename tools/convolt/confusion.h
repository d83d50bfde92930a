// The confusion matrix as a file: aligned text, CSV or a picture.
#pragma once

#include <cstdint>
#include <opencv2/core.hpp>
#include <string>
#include <vector>

namespace convolt::cli {

// Rows: the true class, columns: the predicted one.
struct Confusion {
  std::vector<int64_t> counts;     // [K, K]
  std::vector<std::string> names;  // [K], printable

  int64_t classes() const { return static_cast<int64_t>(names.size()); }
  int64_t at(int64_t row, int64_t column) const { return counts[static_cast<size_t>(row * classes() + column)]; }
  int64_t row_sum(int64_t row) const;
};

// Throws UsageError for a name that ends in none of .txt, .csv and .png, and for a .png of more classes than a picture
// can show.
void check_confusion_path(const std::string& path, int64_t classes);
// In the format of the name's end, through AtomicFile.
void write_confusion(const std::string& path, const Confusion& matrix, const std::string& title);

// A heat map: colours by the part of each row, counts where they fit, BGR.
cv::Mat draw_confusion(const Confusion& matrix, const std::string& title);

// Below this many classes a matrix is drawn with names, below the second with counts.
constexpr int64_t kNamedClasses = 60, kCountedClasses = 25;

}  // namespace convolt::cli
