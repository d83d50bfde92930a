// Every candidate of convolutions and fully connected layers, in turn: milliseconds and GFLOP/s (of the plain sums).
//   conv_candidates [--dtype f32] [--threads 2] [--rounds 7] [--layer resnet20] [--device cpu]
// A line of JSON for each on stdout.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "conv/conv.h"
#include "convolt/convolt.h"

using namespace convolt;

namespace {

struct Options {
  std::string device = "cpu", dtype = "f32", layer;
  int threads = 0, rounds = 7;
};

// A convolution or a fully connected layer, in any pass.
struct Case {
  const char* name;
  ConvGeometry geometry;
  LinearDesc linear;
  bool is_linear = false;

  std::string to_string() const {
    return is_linear ? fmt::format("n{} {} -> {}", linear.rows, linear.in, linear.out) : geometry.to_string();
  }
  int64_t flops() const { return is_linear ? 2 * linear.rows * linear.in * linear.out : geometry.flops(); }
  int64_t x() const { return is_linear ? linear.rows * linear.in : geometry.x_shape().elements(); }
  int64_t w() const { return is_linear ? linear.in * linear.out : geometry.w_shape().elements(); }
  int64_t y() const { return is_linear ? linear.rows * linear.out : geometry.y_shape().elements(); }
  std::vector<std::unique_ptr<ConvKernel>> candidates(ConvProvider& provider, ConvPass pass, DType dtype) const {
    if (!is_linear) return provider.candidates(ConvDesc{pass, geometry, dtype});
    return provider.candidates(LinearDesc{pass, linear.rows, linear.in, linear.out, dtype});
  }
};
Case conv(const char* name, int64_t n, int64_t side, int64_t in, int64_t out, int padding) {
  return {name,
          {.n = n, .in_h = side, .in_w = side, .in_c = in, .out_c = out, .kernel_h = 3, .kernel_w = 3, .pad = padding},
          {}};
}
// "Same" padding, as many groups as channels.
Case depthwise(const char* name, int64_t n, int64_t side, int64_t channels, int kernel, int stride) {
  Case c = conv(name, n, side, channels, channels, kernel / 2);
  c.geometry.kernel_h = c.geometry.kernel_w = kernel;
  c.geometry.stride_h = c.geometry.stride_w = stride;
  c.geometry.groups = channels;
  return c;
}
Case fully_connected(const char* name, int64_t rows, int64_t in, int64_t out) {
  return {name, {}, {.rows = rows, .in = in, .out = out}, true};
}
std::vector<Case> layers() {
  return {conv("mnist_cnn conv2", 128, 26, 32, 64, 0),
          conv("resnet20 layer1", 128, 32, 16, 16, 1),
          conv("resnet20 layer2", 128, 16, 32, 32, 1),
          conv("resnet20 layer3", 128, 8, 64, 64, 1),
          conv("resnet18_cifar layer1", 64, 32, 64, 64, 1),
          conv("resnet18_cifar layer2", 64, 16, 128, 128, 1),
          conv("resnet18_cifar layer3", 64, 8, 256, 256, 1),
          conv("resnet18_cifar layer4", 64, 4, 512, 512, 1),
          conv("resnet50 layer1", 16, 56, 64, 64, 1),
          conv("resnet50 layer4", 16, 7, 512, 512, 1),
          depthwise("mobilenet_v2 block2 depthwise", 16, 112, 96, 3, 2),
          depthwise("mobilenet_v2 block3 depthwise", 16, 56, 144, 3, 1),
          depthwise("mobilenet_v2 block9 depthwise", 16, 14, 384, 3, 1),
          depthwise("mobilenet_v2 block16 depthwise", 16, 7, 960, 3, 1),
          depthwise("efficientnet_b0 stage3 depthwise", 16, 56, 144, 5, 2),
          depthwise("efficientnet_b0 stage5 depthwise", 16, 14, 480, 5, 1),
          depthwise("convnext_tiny stage1 depthwise", 16, 56, 96, 7, 1),
          depthwise("convnext_tiny stage2 depthwise", 16, 28, 192, 7, 1),
          depthwise("convnext_tiny stage3 depthwise", 16, 14, 384, 7, 1),
          depthwise("convnext_tiny stage4 depthwise", 16, 7, 768, 7, 1),
          fully_connected("mnist_cnn fc1", 128, 9216, 128),
          fully_connected("alexnet fc2", 64, 4096, 4096),
          fully_connected("resnet50 fc", 64, 2048, 1000),
          fully_connected("convnext_tiny expand", 3136, 96, 384)};
}

class Measured {
public:
  Measured(Context& context, std::unique_ptr<ConvKernel> kernel, const Case& layer, ConvPass pass, DType dtype)
      : context_(context),
        kernel_(std::move(kernel)),
        x_(filled(layer.x() * size_of(dtype))),
        y_(filled(layer.y() * size_of(dtype))),
        w_(filled(layer.w() * size_of(dtype))),
        packed_(context, std::max<int64_t>(kernel_->packed_bytes(), 1)),
        workspace_(context, std::max<int64_t>(kernel_->workspace_bytes(), 1)),
        wgrad_(pass == ConvPass::wgrad) {}

  // With the packing of the weights, or the unpacking of their gradient, as a training step does it.
  double once() {
    const auto start = std::chrono::steady_clock::now();
    context_.compute().run([this](Stream s) {
      const bool packs = kernel_->packed_bytes() > 0;
      if (packs && !wgrad_) kernel_->pack(s, w_.data(), packed_.data());
      kernel_->run(s, {x_.data(), packs ? packed_.data() : w_.data(), y_.data(), nullptr, workspace_.data()});
      if (packs && wgrad_) kernel_->unpack(s, packed_.data(), w_.data());
    });
    context_.compute().synchronize();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  }
  const ConvKernel& kernel() const { return *kernel_; }

private:
  Buffer filled(int64_t size) {
    Buffer buffer(context_, size);
    const std::vector<uint8_t> bytes(static_cast<size_t>(buffer.bytes()), 0x3c);
    context_.compute().copy(buffer.data(), bytes.data(), buffer.bytes());
    context_.compute().synchronize();
    return buffer;
  }

  Context& context_;
  std::unique_ptr<ConvKernel> kernel_;
  Buffer x_, y_, w_, packed_, workspace_;
  bool wgrad_;
};

void measure(Context& context, const Options& o, const Case& layer, ConvPass pass) {
  const DType dtype = dtype_from_name(o.dtype);
  std::vector<std::unique_ptr<Measured>> all;
  for (auto& kernel : layer.candidates(context.conv(), pass, dtype))
    all.push_back(std::make_unique<Measured>(context, std::move(kernel), layer, pass, dtype));
  std::vector<std::vector<double>> times(all.size());
  for (int round = -1; round < o.rounds; ++round)
    for (size_t i = 0; i < all.size(); ++i)
      if (const double ms = all[i]->once(); round >= 0) times[i].push_back(ms);
  for (size_t i = 0; i < all.size(); ++i) {
    std::sort(times[i].begin(), times[i].end());
    const double median = times[i][times[i].size() / 2];
    fmt::print("{}\n",
               nlohmann::ordered_json{{"layer", layer.name},
                                      {"shape", layer.to_string()},
                                      {"pass", std::array{"fprop", "dgrad", "wgrad"}[static_cast<size_t>(pass)]},
                                      {"dtype", o.dtype},
                                      {"candidate", all[i]->kernel().name()},
                                      {"device", context.describe()},
                                      {"rounds", o.rounds},
                                      {"ms_median", median},
                                      {"ms_min", times[i].front()},
                                      {"ms_max", times[i].back()},
                                      {"gflops", static_cast<double>(layer.flops()) / median / 1e6}}
                   .dump());
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("Time of every candidate of some networks' convolutions and fully connected layers");
  app.add_option("--device", o.device)->capture_default_str();
  app.add_option("--dtype", o.dtype)->capture_default_str();
  app.add_option("--threads", o.threads, "CPU compute threads")->capture_default_str();
  app.add_option("--layer", o.layer, "only those whose name has this in it");
  app.add_option("--rounds", o.rounds)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    const auto context = Context::create({Device::parse(o.device), o.threads});
    for (const Case& layer : layers())
      if (std::string(layer.name).find(o.layer) != std::string::npos)
        for (const ConvPass pass : {ConvPass::fprop, ConvPass::dgrad, ConvPass::wgrad})
          measure(*context, o, layer, pass);
  } catch (const std::exception& e) {
    fmt::print(stderr, "conv_candidates: {}\n", e.what());
    return 1;
  }
}
