// The shapes of the made data set. No two are alike up to turning and mirroring.
#pragma once

#include <opencv2/core.hpp>
#include <string>
#include <vector>

namespace convolt {

struct Shape2d {
  std::string name;
  // Outlines within the unit circle, y downwards; a point is inside when an odd number of outlines holds it.
  std::vector<std::vector<cv::Point2d>> outlines;
};

// All of them, the ones that gain most from augmentation first.
std::vector<Shape2d> all_shapes();

}  // namespace convolt
