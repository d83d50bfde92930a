#include "convolt/params.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <numbers>
#include <optional>

#include "activation.h"
#include "core/finite.h"
#include "core/philox.h"
#include "graph/file_layout.h"

namespace convolt {
namespace {

constexpr int64_t kAlign = 512;  // so that the 16-bit copies, at half the offset, start on 256 bytes too
int64_t aligned(int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// Box-Muller on the numbers of one counter: a pure function of (seed, parameter, element).
float standard_normal(const Philox4& r) {
  const double u = (static_cast<double>(r.v[0]) + 1) * 0x1p-32, v = static_cast<double>(r.v[1]) * 0x1p-32;
  return static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v));
}

// Of element [o, i, h, w] of a convolution in file layout; none beyond the inputs.
std::optional<float> identity_value(const ParamSpec& spec, int64_t element) {
  const Shape file = spec.file_shape();
  if (file.rank() != 4) return {};
  const int64_t pixels = file[2] * file[3], o = element / (file[1] * pixels), i = element / pixels % file[1];
  if (o >= file[1]) return {};
  return i == o && element % pixels == file[2] / 2 * file[3] + file[3] / 2 ? 1.F : 0.F;
}

float initial_value(const ParamSpec& spec, uint64_t seed, int param, int64_t element) {
  const auto bits = [&](uint32_t attempt) {
    return random4(seed, RandomUse::initialise, static_cast<uint32_t>(param), static_cast<uint64_t>(element), attempt);
  };
  const Init& init = spec.init;
  const int64_t fan = init.fan == Init::Fan::in ? spec.fan_in : init.fan == Init::Fan::out ? spec.fan_out : 1;
  const float scale = init.gain / std::sqrt(static_cast<float>(fan));
  switch (init.kind) {
    case Init::Kind::constant:
      return init.gain;
    case Init::Kind::normal:
      return standard_normal(bits(0)) * scale;
    case Init::Kind::identity:
      if (const std::optional<float> value = identity_value(spec, element)) return *value;
      return (2 * uniform(bits(0).v[0]) - 1) * scale;
    case Init::Kind::uniform:
      return (2 * uniform(bits(0).v[0]) - 1) * scale;
    case Init::Kind::truncated_normal:
      for (uint32_t attempt = 0;; ++attempt)  // one draw in twenty is outside
        if (const float x = standard_normal(bits(attempt)); std::abs(x) <= 2) return x * scale;
  }
  return 0;
}

// Calls f(index in file layout, index in memory) for each element of an [O, H, W, I] parameter, from several threads.
template <class F>
void for_each_element(const ParamSpec& spec, [[maybe_unused]] int threads, F f) {
  const bool as_is = spec.file == ParamSpec::File::as_is || spec.file == ParamSpec::File::column;
  const int64_t outputs = spec.shape[0], elements = spec.shape.elements() / outputs;
  const int64_t height = as_is ? 1 : spec.shape[1], width = as_is ? 1 : spec.shape[2];
  const int64_t in = elements / (height * width);
  constexpr int64_t kParallelElements = 1 << 14;  // fewer are done before the threads are awake
  if (spec.shape.elements() < kParallelElements) threads = 1;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t o = 0; o < outputs; ++o) {
    int64_t memory = o * elements;
    for (int64_t h = 0; h < height; ++h)
      for (int64_t w = 0; w < width; ++w)
        for (int64_t i = 0; i < in; ++i) f(((o * in + i) * height + h) * width + w, memory++);
  }
}

std::vector<float> to_file(const ParamSpec& spec, const std::vector<float>& memory, int threads) {
  std::vector<float> file(memory.size());
  for_each_element(spec, threads,
                   [&](int64_t f, int64_t m) { file[static_cast<size_t>(f)] = memory[static_cast<size_t>(m)]; });
  return file;
}

void check_size(const ParamSpec& spec, size_t found) {
  if (static_cast<int64_t>(found) != spec.shape.elements())
    throw ShapeError(fmt::format("parameter '{}' has {} elements {}, found {}", spec.name, spec.shape.elements(),
                                 spec.file_shape().to_string(), found));
}

}  // namespace

std::vector<float> read_file_layout(Context& context, const Tensor& tensor, const ParamSpec& spec) {
  std::vector<float> memory(static_cast<size_t>(tensor.elements()));
  context.compute().copy(memory.data(), tensor.data, tensor.bytes());
  context.compute().synchronize();
  return to_file(spec, memory, context.threads());
}

void write_file_layout(Context& context, const Tensor& tensor, const ParamSpec& spec, const std::vector<float>& file) {
  check_size(spec, file.size());
  std::vector<float> memory(file.size());
  for_each_element(spec, context.threads(),
                   [&](int64_t f, int64_t m) { memory[static_cast<size_t>(m)] = file[static_cast<size_t>(f)]; });
  context.compute().copy(tensor.data, memory.data(), tensor.bytes());
  context.compute().synchronize();
}

Params::Params(Context& context, const Graph& graph) : context_(&context), specs_(graph.params()) {
  offsets_.resize(specs_.size());
  int64_t bytes = 0;
  for (const bool trainable : {true, false}) {
    for (size_t i = 0; i < specs_.size(); ++i)
      if (specs_[i].trainable == trainable) {
        offsets_[i] = bytes;
        bytes += aligned(specs_[i].shape.elements() * 4);
      }
    if (trainable) trainable_bytes_ = bytes;
  }
  slab_ = Buffer(context, bytes);
  context.compute().run([this](Stream s) { fill_zero(s, slab_.data(), slab_.bytes()); });
  context.compute().synchronize();
}

Params::Params(Context& context, const Graph& graph, uint64_t seed) : Params(context, graph) {
  std::vector<float> host;
  for (size_t i = 0; i < specs_.size(); ++i) {
    const ParamSpec& spec = specs_[i];
    host.resize(static_cast<size_t>(spec.shape.elements()));
    for_each_element(spec, context.threads(), [&](int64_t file, int64_t memory) {
      host[static_cast<size_t>(memory)] = initial_value(spec, seed, static_cast<int>(i), file);
    });
    const Tensor to = tensor(static_cast<int>(i));
    context.compute().copy(to.data, host.data(), to.bytes());
    context.compute().synchronize();
  }
}

Params Params::zeros(Context& context, const Graph& graph) { return {context, graph}; }

Params Params::clone() const {
  Params other(*context_);
  other.specs_ = specs_;
  other.offsets_ = offsets_;
  other.trainable_bytes_ = trainable_bytes_;
  other.batches_tracked = batches_tracked;
  other.slab_ = Buffer(*context_, slab_.bytes());
  context_->compute().copy(other.slab_.data(), slab_.data(), slab_.bytes());
  context_->compute().synchronize();
  return other;
}

int Params::find(const std::string& name) const {
  for (size_t i = 0; i < specs_.size(); ++i)
    if (specs_[i].name == name) return static_cast<int>(i);
  return -1;
}

size_t Params::place(int i) const {
  if (i < 0 || static_cast<size_t>(i) >= specs_.size())
    throw UsageError(
        fmt::format("there is no parameter {}: there are {}, from 0 on (find() answers -1 for a name that "
                    "none has)",
                    i, specs_.size()));
  return static_cast<size_t>(i);
}

Tensor Params::tensor(int i) const { return {DType::f32, spec(i).shape, slab_.as<char>() + offset(i)}; }

Tensor Params::copy(int i, DType dtype) {
  auto [copy, fresh] = copies_.try_emplace(dtype);
  if (fresh) copy->second = Buffer(*context_, trainable_bytes_ / 2);
  return {dtype, spec(i).shape, copy->second.as<char>() + offset(i) / 2};
}

std::vector<float> Params::values(int i) const { return read_file_layout(*context_, tensor(i), spec(i)); }

void Params::set_values(int i, const std::vector<float>& values) {
  write_file_layout(*context_, tensor(i), spec(i), values);
  touch();
}

std::vector<float> Params::to_file_layout(int i, const std::vector<float>& memory) const {
  check_size(spec(i), memory.size());
  return to_file(spec(i), memory, context_->threads());
}

std::string Params::find_non_finite() const {
  std::vector<float> host;
  for (int i = 0; i < static_cast<int>(specs_.size()); ++i) {
    const Tensor from = tensor(i);
    host.resize(static_cast<size_t>(from.elements()));
    context_->compute().copy(host.data(), from.data, from.bytes());
    context_->compute().synchronize();
    if (!all_finite(host)) return spec(i).name;
  }
  return {};
}

int64_t Params::bytes() const {
  int64_t n = slab_.bytes();
  for (const auto& [dtype, buffer] : copies_) n += buffer.bytes();
  return n;
}

int64_t Params::bytes_with_copy(DType dtype) const {
  return bytes() + (dtype == DType::f32 || copies_.contains(dtype) ? 0 : trainable_bytes_ / 2);
}

}  // namespace convolt
