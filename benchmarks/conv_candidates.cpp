// Every candidate of the 3x3 convolutions of small networks, in turn: milliseconds and GFLOP/s (of the plain sum).
//   conv_candidates [--dtype f32] [--threads 2] [--rounds 7] [--shape resnet20] [--device cpu]
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
  std::string device = "cpu", dtype = "f32", shape;
  int threads = 0, rounds = 7;
};

struct Named {
  const char* name;
  ConvGeometry geometry;
};
ConvGeometry of(int64_t n, int64_t side, int64_t in, int64_t out, int padding) {
  return {.n = n, .in_h = side, .in_w = side, .in_c = in, .out_c = out, .kernel_h = 3, .kernel_w = 3, .pad = padding};
}
std::vector<Named> shapes() {
  return {{"mnist_cnn conv2", of(128, 26, 32, 64, 0)},       {"resnet20 layer1", of(128, 32, 16, 16, 1)},
          {"resnet20 layer2", of(128, 16, 32, 32, 1)},       {"resnet20 layer3", of(128, 8, 64, 64, 1)},
          {"resnet18_cifar layer1", of(64, 32, 64, 64, 1)},  {"resnet18_cifar layer2", of(64, 16, 128, 128, 1)},
          {"resnet18_cifar layer3", of(64, 8, 256, 256, 1)}, {"resnet18_cifar layer4", of(64, 4, 512, 512, 1)},
          {"resnet50 layer1", of(16, 56, 64, 64, 1)},        {"resnet50 layer4", of(16, 7, 512, 512, 1)}};
}

class Measured {
public:
  Measured(Context& context, std::unique_ptr<ConvKernel> kernel, const ConvDesc& d)
      : context_(context),
        kernel_(std::move(kernel)),
        x_(filled(d.geometry.x_shape(), d.dtype)),
        y_(filled(d.geometry.y_shape(), d.dtype)),
        w_(filled(d.geometry.w_shape(), d.dtype)),
        packed_(context, std::max<int64_t>(kernel_->packed_bytes(), 1)),
        workspace_(context, std::max<int64_t>(kernel_->workspace_bytes(), 1)),
        wgrad_(d.pass == ConvPass::wgrad) {}

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
  Buffer filled(const Shape& shape, DType dtype) {
    Buffer buffer(context_, shape.elements() * size_of(dtype));
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

void measure(Context& context, const Options& o, const Named& shape, ConvPass pass) {
  const ConvDesc d{pass, shape.geometry, dtype_from_name(o.dtype)};
  std::vector<std::unique_ptr<Measured>> all;
  for (auto& kernel : context.conv().candidates(d))
    all.push_back(std::make_unique<Measured>(context, std::move(kernel), d));
  std::vector<std::vector<double>> times(all.size());
  for (int round = -1; round < o.rounds; ++round)
    for (size_t i = 0; i < all.size(); ++i)
      if (const double ms = all[i]->once(); round >= 0) times[i].push_back(ms);
  for (size_t i = 0; i < all.size(); ++i) {
    std::sort(times[i].begin(), times[i].end());
    const double median = times[i][times[i].size() / 2];
    fmt::print("{}\n",
               nlohmann::ordered_json{{"shape", shape.name},
                                      {"geometry", shape.geometry.to_string()},
                                      {"pass", std::array{"fprop", "dgrad", "wgrad"}[static_cast<size_t>(pass)]},
                                      {"dtype", o.dtype},
                                      {"candidate", all[i]->kernel().name()},
                                      {"device", context.describe()},
                                      {"rounds", o.rounds},
                                      {"ms_median", median},
                                      {"ms_min", times[i].front()},
                                      {"ms_max", times[i].back()},
                                      {"gflops", static_cast<double>(shape.geometry.flops()) / median / 1e6}}
                   .dump());
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("Time of every candidate of small networks' convolutions");
  app.add_option("--device", o.device)->capture_default_str();
  app.add_option("--dtype", o.dtype)->capture_default_str();
  app.add_option("--threads", o.threads, "CPU compute threads")->capture_default_str();
  app.add_option("--shape", o.shape, "only those whose name has this in it");
  app.add_option("--rounds", o.rounds)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    const auto context = Context::create({Device::parse(o.device), o.threads});
    for (const Named& shape : shapes())
      if (std::string(shape.name).find(o.shape) != std::string::npos)
        for (const ConvPass pass : {ConvPass::fprop, ConvPass::dgrad, ConvPass::wgrad})
          measure(*context, o, shape, pass);
  } catch (const std::exception& e) {
    fmt::print(stderr, "conv_candidates: {}\n", e.what());
    return 1;
  }
}
