#include "convolt/whitening.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "data/render.h"
#include "train/eigen.h"

namespace convolt {
namespace {

constexpr double kEps = 5e-4;

// The parameter of the convolution that reads the input: its place, and [O, I, H, W].
struct FirstConvolution {
  int param = 0;
  Shape shape;
  int64_t inputs() const { return shape.elements() / shape[0]; }
};

FirstConvolution first_convolution(const Graph& graph) {
  for (const Layer& layer : graph.layers()) {
    if (layer.inputs != std::vector{graph.input_layer()} || layer.params.empty()) continue;
    const ParamSpec& spec = graph.params()[static_cast<size_t>(layer.params[0])];
    if (spec.file != ParamSpec::File::oihw) continue;
    const FirstConvolution first{layer.params[0], spec.file_shape()};
    if (first.shape[0] != 2 * first.inputs())
      throw UsageError(fmt::format(
          "layer '{}': a convolution that whitens has twice as many outputs as its kernel has inputs: expected {}, "
          "found {}; take a network made for it, such as airbench94",
          layer.name, 2 * first.inputs(), first.shape[0]));
    return first;
  }
  throw UsageError("the network has no convolution that reads the pictures: there is nothing to whiten");
}

// Sums the products of the numbers of each patch of a normalised picture [H, W, C]; a patch is [C, kernel].
class Covariance {
public:
  explicit Covariance(const Shape& filter)
      : filter_(filter),
        patch_(static_cast<size_t>(filter.elements() / filter[0])),
        sums_(patch_.size(), std::vector<double>(patch_.size())) {}

  void add(const std::vector<double>& picture, int height, int width) {
    for (int y = 0; y + filter_[2] <= height; ++y)
      for (int x = 0; x + filter_[3] <= width; ++x) {
        take_patch(picture, width, y, x);
        for (size_t i = 0; i < patch_.size(); ++i)
          for (size_t j = 0; j <= i; ++j) sums_[i][j] += patch_[i] * patch_[j];
        ++count_;
      }
  }
  std::vector<std::vector<double>> mean() const {
    auto mean = sums_;
    for (size_t i = 0; i < mean.size(); ++i)
      for (size_t j = 0; j <= i; ++j) mean[i][j] = mean[j][i] = sums_[i][j] / static_cast<double>(count_);
    return mean;
  }
  bool empty() const { return count_ == 0; }

private:
  void take_patch(const std::vector<double>& picture, int width, int y, int x) {
    size_t at = 0;
    for (int64_t c = 0; c < filter_[1]; ++c)
      for (int64_t h = 0; h < filter_[2]; ++h)
        for (int64_t w = 0; w < filter_[3]; ++w)
          patch_[at++] = picture[static_cast<size_t>(((y + h) * width + x + w) * filter_[1] + c)];
  }

  Shape filter_;
  std::vector<double> patch_;
  std::vector<std::vector<double>> sums_;
  int64_t count_ = 0;
};

std::vector<double> normalised(const std::vector<uint8_t>& levels, const AugmentOptions& o) {
  std::vector<double> values(levels.size());
  for (size_t i = 0; i < levels.size(); ++i) {
    const size_t c = i % static_cast<size_t>(o.channels);
    values[i] = (levels[i] / 255.0 - static_cast<double>(o.mean[c])) / static_cast<double>(o.std[c]);
  }
  return values;
}

Covariance covariance_of(Context& context, const Shape& filter, const Dataset& data, const AugmentOptions& o,
                         int64_t pictures) {
  Covariance covariance(filter);
  constexpr std::array<uint32_t, 1> kAnyEpoch{0};
  std::string reason;
  for (int64_t k = 0; k < pictures; ++k) {
    const int64_t sample = k * data.size() / pictures;
    try {
      const DecodedPicture picture = decode_sample(data, sample, o);
      covariance.add(normalised(render(context, picture, o, 0, sample, kAnyEpoch), o), o.height, o.width);
    } catch (const DataError& e) {
      reason = e.what();
    }
  }
  if (covariance.empty()) throw DataError("no picture to whiten the first convolution with: " + reason);
  return covariance;
}

}  // namespace

void whiten(const Graph& graph, Params& params, const Dataset& data, const AugmentOptions& preprocessing,
            int64_t pictures) {
  const FirstConvolution first = first_convolution(graph);
  const int64_t count = std::min(pictures, data.size());
  const Eigen eigen = eigen_of(covariance_of(params.context(), first.shape, data, preprocessing, count).mean());
  std::vector<float> weights;
  for (const double sign : {1.0, -1.0})
    for (size_t i = 0; i < eigen.values.size(); ++i)
      for (const double x : eigen.vectors[i])
        weights.push_back(static_cast<float>(sign * x / std::sqrt(eigen.values[i] + kEps)));
  params.set_values(first.param, weights);
}

}  // namespace convolt
