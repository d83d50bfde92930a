#include "convolt/synth.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numbers>
#include <opencv2/imgcodecs.hpp>  // the names of parameters
#include <opencv2/imgproc.hpp>

#include "convolt/error.h"
#include "core/philox.h"
#include "data/decode.h"
#include "data/opencv_codecs.h"
#include "data/parallel_for.h"
#include "data/shapes.h"
#include "io/atomic_folder.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

// The numbers of one picture, in the order in which they are asked for.
class Dice {
public:
  Dice(uint64_t seed, uint32_t split, uint64_t picture) : seed_(seed), split_(split), picture_(picture) {}

  uint32_t bits() {
    if (next_ % 4 == 0) four_ = random4(seed_, RandomUse::synth, split_, picture_, next_ / 4);
    return four_.v[next_++ % 4];
  }
  double between(double low, double high) { return low + (high - low) * static_cast<double>(uniform(bits())); }
  int whole(int low, int high) { return low + static_cast<int>(bits() % static_cast<uint32_t>(high - low + 1)); }
  bool coin() { return (bits() & 1) != 0; }
  cv::Scalar colour() { return {between(20, 235), between(20, 235), between(20, 235)}; }

private:
  uint64_t seed_;
  uint32_t split_;
  uint64_t picture_;
  uint32_t next_ = 0;
  Philox4 four_{};
};

// How a shape lies in its picture.
struct Pose {
  double angle = 0;     // degrees
  double scale = 1;     // radius, in halves of the shorter side
  double x = 0, y = 0;  // offset of the centre, in halves of the shorter side
  bool mirrored = false;
};

Pose training_pose(Dice& dice) {
  return {dice.between(-4, 4), dice.between(0.58, 0.66), dice.between(-0.05, 0.05), dice.between(-0.05, 0.05), false};
}

Pose validation_pose(Dice& dice) {
  Pose pose;
  pose.angle = dice.between(-35, 35);
  pose.scale = dice.coin() ? dice.between(0.36, 0.5) : dice.between(0.7, 0.85);
  const double room = 0.9 - 0.7 * pose.scale;
  pose.x = dice.between(-room / 2, room / 2);
  pose.y = dice.between(-room / 2, room / 2);
  pose.mirrored = dice.coin();
  return pose;
}

// Soft clouds of `spread` around `colour`: a coarse random grid, enlarged.
cv::Mat clouds(Dice& dice, cv::Size size, const cv::Scalar& colour, double spread) {
  cv::Mat grid(dice.whole(3, 9), dice.whole(3, 9), CV_32FC3), picture;
  for (int y = 0; y < grid.rows; ++y)
    for (int x = 0; x < grid.cols; ++x)
      for (int c = 0; c < 3; ++c)
        grid.at<cv::Vec3f>(y, x)[c] = static_cast<float>(colour[c] + dice.between(-spread, spread));
  cv::resize(grid, picture, size, 0, 0, cv::INTER_CUBIC);
  return picture;
}

double brightness(const cv::Scalar& bgr) { return 0.114 * bgr[0] + 0.587 * bgr[1] + 0.299 * bgr[2]; }

// How much of each pixel the shape covers, 0..1: drawn four times as large, then averaged.
cv::Mat coverage(const Shape2d& shape, const Pose& pose, cv::Size size) {
  constexpr int kFiner = 4;
  const double half = kFiner * std::min(size.width, size.height) / 2.0, angle = pose.angle * std::numbers::pi / 180;
  const double centre_x = kFiner * size.width / 2.0 + pose.x * half,
               centre_y = kFiner * size.height / 2.0 + pose.y * half;
  std::vector<std::vector<cv::Point>> outlines;
  for (const auto& outline : shape.outlines) {
    std::vector<cv::Point>& points = outlines.emplace_back();
    for (const cv::Point2d& p : outline) {
      const double x = (pose.mirrored ? -p.x : p.x) * pose.scale * half, y = p.y * pose.scale * half;
      points.emplace_back(static_cast<int>(std::lround(centre_x + x * std::cos(angle) - y * std::sin(angle))),
                          static_cast<int>(std::lround(centre_y + x * std::sin(angle) + y * std::cos(angle))));
    }
  }
  cv::Mat fine(size.height * kFiner, size.width * kFiner, CV_8U, cv::Scalar(0)), mask, share;
  cv::fillPoly(fine, outlines, cv::Scalar(255));
  cv::resize(fine, mask, size, 0, 0, cv::INTER_AREA);
  mask.convertTo(share, CV_32F, 1 / 255.0);
  return share;
}

// BGR. Colours are drawn apart from the class; only the outline tells it.
cv::Mat draw(const Shape2d& shape, const SynthOptions& options, bool training, Dice& dice) {
  const int width = dice.whole(options.min_side, options.max_side);
  const int height = std::clamp(static_cast<int>(width * dice.between(0.8, 1.25)), options.min_side, options.max_side);
  const cv::Size size(width, height);
  const Pose pose = training ? training_pose(dice) : validation_pose(dice);
  const cv::Scalar behind = dice.colour();
  cv::Scalar front = dice.colour();
  constexpr double kContrast = 90;
  while (std::abs(brightness(front) - brightness(behind)) < kContrast) front = dice.colour();
  cv::Mat picture = clouds(dice, size, behind, 28);
  const cv::Mat texture = clouds(dice, size, front, 28), share = coverage(shape, pose, size);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      auto& pixel = picture.at<cv::Vec3f>(y, x);
      const float s = share.at<float>(y, x);
      pixel += (texture.at<cv::Vec3f>(y, x) - pixel) * s;
      const uint32_t noise = dice.bits();
      for (int c = 0; c < 3; ++c) pixel[c] += static_cast<float>(noise >> (8 * c) & 0xFF) * (24.F / 255) - 12;
    }
  picture.convertTo(picture, CV_8UC3);
  return picture;
}

void write_file(const fs::path& path, const std::vector<uint8_t>& bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) throw Error(path.string() + ": cannot be written; is the disk full?");
}

void require(bool good, const std::string& name, const std::string& expected, int found) {
  if (!good) throw UsageError("synth: " + name + " is " + std::to_string(found) + ", expected " + expected);
}

void check(const SynthOptions& o) {
  require(o.classes >= 2 && o.classes <= SynthOptions::kMaxClasses, "the number of classes", "2 to 16", o.classes);
  require(o.train_per_class >= 1, "the number of training pictures", "at least 1", o.train_per_class);
  require(o.val_per_class >= 0, "the number of validation pictures", "at least 0", o.val_per_class);
  require(o.min_side >= 16 && o.min_side <= 4096, "the smallest side", "16 to 4096", o.min_side);
  require(o.max_side >= o.min_side && o.max_side <= 4096, "the largest side", "at most 4096 and not below the smallest",
          o.max_side);
  require(o.jpeg_quality >= 1 && o.jpeg_quality <= 100, "the JPEG quality", "1 to 100", o.jpeg_quality);
  require(o.threads >= 1, "the number of threads", "at least 1", o.threads);
}

void write_split(const SynthOptions& options, const std::vector<Shape2d>& shapes, const fs::path& folder,
                 bool training) {
  const int count = training ? options.train_per_class : options.val_per_class;
  const fs::path root = folder / (training ? "train" : "val");
  for (int c = 0; c < options.classes && count > 0; ++c)
    fs::create_directories(root / shapes[static_cast<size_t>(c)].name);
  parallel_for(int64_t{count} * options.classes, options.threads, [&](int64_t i) {
    check_interrupt(options.interrupt, options.output);
    const int64_t c = i % options.classes, number = i / options.classes;
    const Shape2d& shape = shapes[static_cast<size_t>(c)];
    Dice dice(options.seed, training ? 0 : 1, static_cast<uint64_t>(c << 32 | number));
    const cv::Mat picture = draw(shape, options, training, dice);
    write_file(root / shape.name / fmt::format("{:03}.jpg", number),
               opencv_imencode(".jpg", picture, {cv::IMWRITE_JPEG_QUALITY, options.jpeg_quality}));
  });
}

}  // namespace

void make_synthetic_dataset(const SynthOptions& options) {
  prepare_decoder();
  try {
    check(options);
    const std::vector<Shape2d> shapes = all_shapes();
    AtomicFolder folder(options.output);
    write_split(options, shapes, folder.path(), true);
    write_split(options, shapes, folder.path(), false);
    folder.commit();
  } catch (const fs::filesystem_error& error) {
    throw Error(options.output + ": cannot be written (" + error.code().message() + ")");
  }
}

}  // namespace convolt
