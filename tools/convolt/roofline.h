// The roofline of a machine with what was measured on it (S. Williams et al., CACM 52(4), 2009).
#pragma once

#include <opencv2/core.hpp>
#include <string>
#include <vector>

namespace convolt::cli {

struct Roofline {
  struct Point {
    double intensity = 0;  // FLOP per byte
    double rate = 0;       // FLOP per second
    std::string label;     // drawn where there is room; may be empty
  };
  struct Series {
    std::string name;
    cv::Scalar colour;  // BGR
    std::vector<Point> points;
  };
  std::string title, subtitle;
  double bytes_per_second = 0, flops_per_second = 0;  // the roofs
  std::vector<Series> series;
};

cv::Mat draw_roofline(const Roofline& roofline);

}  // namespace convolt::cli
