// JPEGs to pixels on one core: Convolt's decoder beside cv::imdecode, in turn over the same files.
//   decode_jpeg --data-path DATA | --noisy 128   [--pictures 512] [--rounds 9] [--size 224]
// One JSON object on stdout. "whole": all pixels, as cv::imdecode makes them. "crop": the part of each picture that a
// random crop of it needs (torchvision's, area 0.08 to 1), at the scale that suffices for a network's input of --size,
// of files that were decoded before, as in all epochs but the first; "first_crop": of files read to their end.
// --noisy makes pictures of 500 x 375 with noise, quality 90: about 95 kB, as those of ImageNet.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "convolt/convolt.h"
#include "data/view.h"
#include "timing.h"

using namespace convolt;

namespace {

struct Options {
  std::string path;
  int64_t pictures = 512;
  int noisy = 0, rounds = 9, size = 224;
};

std::vector<RawSample> noisy_pictures(int count) {
  std::vector<RawSample> files(static_cast<size_t>(count));
  cv::RNG random(7);
  for (RawSample& file : files) {
    cv::Mat coarse(6, 8, CV_8UC3), picture, noise(375, 500, CV_16SC3);
    random.fill(coarse, cv::RNG::UNIFORM, 0, 256);
    cv::resize(coarse, picture, {500, 375}, 0, 0, cv::INTER_CUBIC);
    random.fill(noise, cv::RNG::NORMAL, 0, 19);
    cv::add(picture, noise, picture, cv::noArray(), CV_8UC3);
    cv::imencode(".jpg", picture, file.bytes, {cv::IMWRITE_JPEG_QUALITY, 90});
  }
  return files;
}

std::vector<RawSample> read_jpegs(const Options& o) {
  if (o.noisy > 0) return noisy_pictures(o.noisy);
  const auto data = open_dataset({.path = o.path});
  std::vector<RawSample> files;
  const int64_t step = std::max<int64_t>(1, data->size() / o.pictures);
  for (int64_t i = 0; i < data->size() && static_cast<int64_t>(files.size()) < o.pictures; i += step) {
    RawSample file = data->read(i);
    const std::span<const uint8_t> bytes = file.content();
    if (file.height > 0 || read_picture_header(bytes).format != PictureFormat::jpeg) continue;
    files.push_back({.bytes = {bytes.begin(), bytes.end()}});
  }
  return files;
}

nlohmann::ordered_json ratios_of(const std::vector<double>& theirs, const std::vector<double>& ours, double pictures) {
  std::vector<double> ratios;
  for (size_t i = 0; i < ours.size(); ++i) ratios.push_back(theirs[i] / ours[i]);
  const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
  return {{"per_second", pictures * 1e3 / median(ours)},
          {"ratio_median", median(ratios)},
          {"ratio_min", *low},
          {"ratio_max", *high}};
}

int measure(const Options& o) {
  prepare_decoder();  // OpenCV on one thread
  const std::vector<RawSample> files = read_jpegs(o);
  if (files.empty()) throw DataError(o.path + ": has no JPEGs");
  int64_t largest = 0;
  double bytes = 0;
  for (const RawSample& file : files) {
    largest = std::max(largest, decoded_size(file, {}).bytes());
    bytes += static_cast<double>(file.bytes.size());
  }
  std::vector<uint8_t> target(static_cast<size_t>(largest));
  AugmentOptions crop;
  crop.height = crop.width = o.size;
  uint32_t epoch = 0;
  const auto opencv = [&] {
    for (const RawSample& file : files) cv::imdecode(file.bytes, cv::IMREAD_COLOR);
  };
  const auto whole = [&] {
    for (const RawSample& file : files) decode(file, {}, target, "picture");
  };
  const auto part = [&](const DecodeLimits& limits) {
    for (size_t i = 0; i < files.size(); ++i) decode_view(files[i], crop, {1, epoch, i}, limits, target, "picture");
    ++epoch;
  };
  std::vector<double> opencv_ms, whole_ms, first_ms, part_ms;
  for (int i = -1; i < o.rounds; ++i) {  // the first warms up
    const double times[] = {milliseconds(opencv), milliseconds(whole), milliseconds([&] { part({}); }),
                            milliseconds([&] { part({.known_sound = true}); })};
    if (i < 0) continue;
    opencv_ms.push_back(times[0]);
    whole_ms.push_back(times[1]);
    first_ms.push_back(times[2]);
    part_ms.push_back(times[3]);
  }
  const auto n = static_cast<double>(files.size());
  fmt::print("{}\n", nlohmann::ordered_json{{"set", o.noisy > 0 ? "noisy 500x375" : o.path},
                                            {"pictures", files.size()},
                                            {"mean_bytes", bytes / n},
                                            {"size", o.size},
                                            {"rounds", o.rounds},
                                            {"device", Context::create({Device::cpu(), 1})->describe()},
                                            {"opencv_per_second", n * 1e3 / median(opencv_ms)},
                                            {"whole", ratios_of(opencv_ms, whole_ms, n)},
                                            {"first_crop", ratios_of(opencv_ms, first_ms, n)},
                                            {"crop", ratios_of(opencv_ms, part_ms, n)}}
                         .dump());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("Decoding JPEGs on one core, beside OpenCV");
  auto* path = app.add_option("--data-path", o.path, "a data set with JPEGs");
  auto* noisy = app.add_option("--noisy", o.noisy, "so many made pictures instead")->excludes(path);
  app.add_option("--pictures", o.pictures, "JPEGs taken from the set, spread over it")->capture_default_str();
  app.add_option("--rounds", o.rounds)->capture_default_str();
  app.add_option("--size", o.size, "side of the network's input")->capture_default_str();
  app.callback([&] {
    if (path->empty() && noisy->empty()) throw CLI::ValidationError("--data-path or --noisy is needed");
  });
  CLI11_PARSE(app, argc, argv);
  try {
    return measure(o);
  } catch (const std::exception& e) {
    fmt::print(stderr, "decode_jpeg: {}\n", e.what());
    return 1;
  }
}
