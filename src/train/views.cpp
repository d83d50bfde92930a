#include "train/views.h"

#include <fmt/format.h>

#include <algorithm>

#include "convolt/error.h"

namespace convolt {
namespace {

// As StepInput has it.
struct TestView {
  int column = 0, row = 0;
  bool of_mirror_image = false;
  int moved = 0;  // to the left and up
  bool mirrored = false;
  float weight = 1;  // all together 1
};

// In torchvision's order.
void add_five_crops(bool of_mirror_image, float weight, std::vector<TestView>& views) {
  for (const int row : {-1, 1})
    for (const int column : {-1, 1}) views.push_back({column, row, of_mirror_image, 0, false, weight});
  views.push_back({.of_mirror_image = of_mirror_image, .weight = weight});
}

void add_both_ways(int moved, float weight, std::vector<TestView>& views) {
  for (const bool mirrored : {false, true}) views.push_back({.moved = moved, .mirrored = mirrored, .weight = weight});
}

std::vector<TestView> views_of(int count) {
  std::vector<TestView> views;
  switch (count) {
    case 1:
      return {{}};
    case 2:
      add_both_ways(0, 0.5F, views);
      return views;
    case 5:
      add_five_crops(false, 0.2F, views);
      return views;
    case 6:
      for (const int moved : {0, -1, 1}) add_both_ways(moved, moved == 0 ? 0.25F : 0.125F, views);
      return views;
    case 10:
      for (const bool of_mirror_image : {false, true}) add_five_crops(of_mirror_image, 0.1F, views);
      return views;
    default:
      throw UsageError(fmt::format("a picture is evaluated in 1, 2, 5, 6 or 10 views, found {}", count));
  }
}

StepInput seen_in(StepInput input, const TestView& view) {
  input.view_of_mirror_image = view.of_mirror_image ? 1 : 0;
  input.view_column = view.column;
  input.view_row = view.row;
  input.view_x = input.view_y = view.moved;
  input.view_mirrored = view.mirrored ? 1 : 0;
  return input;
}

}  // namespace

bool are_crops(int views) {
  return std::ranges::any_of(views_of(views), [](const TestView& view) { return view.column != 0; });
}

int checked_views(int views, const AugmentOptions& pictures) {
  using Geometry = AugmentOptions::Geometry;
  if (pictures.geometry != Geometry::none && pictures.geometry != Geometry::resize_centre_crop)
    throw UsageError(
        "the preprocessing of validation and prediction crops at random, as AugmentOptions do where nothing else is "
        "said: expected Geometry::none or resize_centre_crop");
  if (!are_crops(views)) return views;
  const int side = std::max(pictures.height, pictures.width);
  if (pictures.geometry != AugmentOptions::Geometry::resize_centre_crop)
    throw UsageError(
        fmt::format("{} views are crops, and the network sees these pictures whole; resize them to more "
                    "than its {} pixels (--val-resize-size), or take 1, 2 or 6 views",
                    views, side));
  if (pictures.resize < side)
    throw UsageError(
        fmt::format("{} views are crops of {} pixels, and pictures are resized to {}; resize them to at "
                    "least {} (--val-resize-size)",
                    views, side, pictures.resize, side));
  return views;
}

void run_first_view(Plan& plan, const StepInput& input, int views) { plan.run(seen_in(input, views_of(views)[0])); }

std::vector<float> mean_of_views(Plan& plan, const StepInput& input, int views) {
  const std::vector<TestView> all = views_of(views);
  std::vector<float> mean = plan.logits();
  for (float& z : mean) z *= all[0].weight;
  for (size_t i = 1; i < all.size(); ++i) {
    plan.run(seen_in(input, all[i]));
    const std::vector<float> logits = plan.logits();
    for (size_t k = 0; k < mean.size(); ++k) mean[k] += all[i].weight * logits[k];
  }
  return mean;
}

}  // namespace convolt
