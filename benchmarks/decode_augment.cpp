// From JPEG bytes to a normalised, turned batch, on one core: Convolt's decoder and augmentation kernel beside OpenCV's
// cv::imdecode, cv::resize and cv::warpAffine one after another, in turn over the same files.
//   decode_augment --data-path FOLDER [--pictures 512] [--rounds 7] [--size 224] [--rotate 15]
// One JSON object on stdout. Convolt crops at random (and decodes that part), mirrors, turns by up to --rotate degrees
// with an antialiased filter and normalises to float; OpenCV resizes the whole picture with a plain bilinear filter and
// turns it by 10 degrees, 8 bits.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "augment.h"
#include "convolt/convolt.h"
#include "data/view.h"
#include "timing.h"

using namespace convolt;

namespace {

struct Options {
  std::string path;
  int64_t pictures = 512;
  int rounds = 7, size = 224, batch = 64;
  float rotate = 15;
};

class Convolt {
public:
  Convolt(const Options& o, const std::vector<RawSample>& files)
      : batch_(o.batch), files_(files), context_(Context::create({Device::cpu(), 1})) {
    augment_.height = augment_.width = o.size;
    augment_.scale = {0.35F, 1.F};
    augment_.hflip = 0.5F;
    augment_.rotate = o.rotate;
    int64_t largest = 0;
    for (const RawSample& file : files)
      largest = std::max(largest, decoded_size(read_picture_header(file.bytes), limits_).bytes());
    scratch_.resize(static_cast<size_t>(largest));
    pixels_.resize(static_cast<size_t>(largest * batch_));
    records_.resize(static_cast<size_t>(batch_));
    out_.resize(static_cast<size_t>(int64_t{batch_} * o.size * o.size * 3));
  }

  void run() {
    for (size_t first = 0; first < files_.size(); first += static_cast<size_t>(batch_)) {
      const size_t count = std::min(files_.size() - first, static_cast<size_t>(batch_));
      int64_t offset = 0;
      for (size_t i = 0; i < count; ++i) {  // as the loader does, with its copy from the scratch to the slot
        const View view = decode_view(files_[first + i], augment_, {1, 0, first + i}, limits_, scratch_, "picture");
        std::copy_n(scratch_.data(), view.bytes, pixels_.data() + offset);
        records_[i] = view.record;
        records_[i].offset += offset;
        offset += view.bytes;
      }
      launch(static_cast<int64_t>(count));
    }
  }

private:
  void launch(int64_t count) {
    StepInput input;
    input.records = records_.data();
    input.pixels = pixels_.data();
    AugmentArgs args;
    args.input = &input;
    std::copy(augment_.mean.begin(), augment_.mean.end(), args.mean);
    std::copy(augment_.std.begin(), augment_.std.end(), args.std);
    args.y = {DType::f32, {count, augment_.height, augment_.width, 3}, out_.data()};
    Queue& queue = context_->compute();
    queue.run([&](Stream s) { augment(s, args); });
    queue.synchronize();
  }

  int batch_;
  const std::vector<RawSample>& files_;
  std::unique_ptr<Context> context_;
  DecodeLimits limits_;
  AugmentOptions augment_;
  std::vector<uint8_t> scratch_, pixels_;
  std::vector<SampleRecord> records_;
  std::vector<float> out_;
};

void run_opencv(const Options& o, const std::vector<RawSample>& files) {
  const auto side = static_cast<float>(o.size);
  const cv::Mat turn = cv::getRotationMatrix2D({side / 2, side / 2}, 10, 1);
  cv::Mat resized, turned;
  for (const RawSample& file : files) {
    const cv::Mat picture = cv::imdecode(file.bytes, cv::IMREAD_COLOR);
    cv::resize(picture, resized, {o.size, o.size}, 0, 0, cv::INTER_LINEAR);
    cv::warpAffine(resized, turned, turn, {o.size, o.size}, cv::INTER_LINEAR);
  }
}

std::vector<RawSample> read_jpegs(const Options& o) {
  const auto data = open_dataset({o.path, "folder", Split::train});
  std::vector<RawSample> files;
  for (int64_t i = 0; i < data->size() && static_cast<int64_t>(files.size()) < o.pictures; ++i) {
    RawSample file = data->read(i);
    if (read_picture_header(file.bytes).format == PictureFormat::jpeg) files.push_back(std::move(file));
  }
  return files;
}

int measure(const Options& o) {
  prepare_decoder();  // OpenCV on one thread
  const std::vector<RawSample> files = read_jpegs(o);
  Convolt ours(o, files);
  std::vector<double> convolt_ms, opencv_ms, ratios;
  ours.run();
  run_opencv(o, files);
  for (int i = 0; i < o.rounds; ++i) {
    convolt_ms.push_back(milliseconds([&] { ours.run(); }));
    opencv_ms.push_back(milliseconds([&] { run_opencv(o, files); }));
    ratios.push_back(opencv_ms.back() / convolt_ms.back());
  }
  const double n = static_cast<double>(files.size());
  const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
  fmt::print("{}\n", nlohmann::ordered_json{{"pictures", files.size()},
                                            {"size", o.size},
                                            {"rotate", o.rotate},
                                            {"rounds", o.rounds},
                                            {"device", Context::create({Device::cpu(), 1})->describe()},
                                            {"convolt_per_second", n * 1e3 / median(convolt_ms)},
                                            {"opencv_per_second", n * 1e3 / median(opencv_ms)},
                                            {"ratio_median", median(ratios)},
                                            {"ratio_min", *low},
                                            {"ratio_max", *high}}
                         .dump());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("Decoding and augmentation on one core, beside OpenCV's");
  app.add_option("--data-path", o.path, "an image folder")->required();
  app.add_option("--pictures", o.pictures, "JPEGs taken from it")->capture_default_str();
  app.add_option("--rounds", o.rounds)->capture_default_str();
  app.add_option("--rotate", o.rotate, "degrees by which Convolt turns at most")->capture_default_str();
  app.add_option("--size", o.size, "side of the result")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    return measure(o);
  } catch (const std::exception& e) {
    fmt::print(stderr, "decode_augment: {}\n", e.what());
    return 1;
  }
}
