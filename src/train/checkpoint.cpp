#include "convolt/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "convolt/network_file.h"
#include "io/safetensors.h"

namespace convolt {
namespace {

using nlohmann::json;
constexpr const char* kMoment = "optim.momentum.";
constexpr const char* kTracked = "num_batches_tracked";

json to_json(const AugmentOptions& o) {
  return {
      {"height", o.height}, {"width", o.width}, {"channels", o.channels}, {"geometry", static_cast<int>(o.geometry)},
      {"resize", o.resize}, {"mean", o.mean},   {"std", o.std},           {"fill", o.fill}};
}

AugmentOptions preprocessing_from(const json& j) {
  AugmentOptions o;
  o.height = j.at("height");
  o.width = j.at("width");
  o.channels = j.at("channels");
  o.geometry = static_cast<AugmentOptions::Geometry>(j.at("geometry").get<int>());
  o.resize = j.at("resize");
  o.mean = j.at("mean");
  o.std = j.at("std");
  o.fill = j.at("fill");
  return o;
}

json to_json(const ModelCard& c) {
  return {{"model", c.model},
          {"network", c.network},
          {"classes", c.classes},
          {"channels", c.channels},
          {"height", c.height},
          {"width", c.width},
          {"class_names", c.class_names},
          {"preprocessing", to_json(c.preprocessing)}};
}

json to_json(const MeterValues& m) { return {m.loss, m.weight, m.top1, m.top5}; }
MeterValues meters_from(const json& j) { return {j.at(0), j.at(1), j.at(2), j.at(3)}; }

json to_json(const TrainingState& s) {
  return {{"step", s.step},
          {"best_top1", s.best_top1},
          {"best_step", s.best_step},
          {"batches_tracked", s.batches_tracked},
          {"loss_scale", s.loss_scale},
          {"good_steps", s.good_steps},
          {"skipped_steps", s.skipped_steps},
          {"meters", to_json(s.meters)},
          {"reported", to_json(s.reported)},
          {"epoch_base", to_json(s.epoch_base)},
          {"device", s.device}};
}

TrainingState state_from(const json& j) {
  TrainingState s;
  s.step = j.at("step");
  s.best_top1 = j.at("best_top1");
  s.best_step = j.at("best_step");
  s.batches_tracked = j.at("batches_tracked");
  s.loss_scale = j.at("loss_scale");
  s.good_steps = j.at("good_steps");
  s.skipped_steps = j.at("skipped_steps");
  s.meters = meters_from(j.at("meters"));
  s.reported = meters_from(j.at("reported"));
  s.epoch_base = meters_from(j.at("epoch_base"));
  s.device = j.at("device");
  return s;
}

// Calls read(), turning what nlohmann-json throws into an error of ours.
template <class F>
auto reading(const std::string& path, const char* what, F read) {
  try {
    return read();
  } catch (const json::exception& e) {
    throw FormatError(fmt::format("{}: its metadata '{}' is not what Convolt writes ({})", path, what, e.what()));
  }
}

const std::string& metadata(const SafeTensors& file, const std::string& path, const std::string& key) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end())
    throw FormatError(fmt::format(
        "{}: not a Convolt checkpoint (it has no '{}' metadata); give --model and --weights for weights of others",
        path, key));
  return found->second;
}

std::string join(const std::vector<std::string>& names) {
  constexpr size_t kShown = 8;
  const auto shown = std::span(names).first(std::min(kShown, names.size()));
  return fmt::format("{}{}", fmt::join(shown, ", "),
                     names.size() > kShown ? " and " + std::to_string(names.size() - kShown) + " more" : "");
}

std::vector<int64_t> extents(const Shape& s) {
  std::vector<int64_t> e;
  for (int i = 0; i < s.rank(); ++i) e.push_back(s[i]);
  return e;
}

std::string text(const std::vector<int64_t>& e) {
  std::string s = "[";
  for (const int64_t extent : e) s += std::to_string(extent) + ", ";
  if (!e.empty()) s.resize(s.size() - 2);
  return s + "]";
}

}  // namespace

void save_checkpoint(const std::string& path, const Params& params, const ModelCard& card, const Sgd* optimizer,
                     const TrainingState* state) {
  std::vector<std::vector<float>> values;
  std::vector<SafeTensor> tensors;
  values.reserve(2 * params.specs().size());  // spans point into it
  const auto add = [&](const std::string& name, const Shape& shape, std::vector<float> v) {
    values.push_back(std::move(v));
    tensors.push_back({name, "F32", extents(shape), std::as_bytes(std::span(values.back()))});
  };
  const int64_t tracked = params.batches_tracked;
  for (size_t i = 0; i < params.specs().size(); ++i) {
    const ParamSpec& spec = params.specs()[i];
    add(spec.name, spec.file_shape(), params.values(static_cast<int>(i)));
    if (const size_t n = spec.name.rfind("running_var"); n != std::string::npos)
      tensors.push_back({spec.name.substr(0, n) + kTracked, "I64", {}, std::as_bytes(std::span(&tracked, 1))});
  }
  if (optimizer != nullptr)
    for (size_t i = 0; i < params.specs().size(); ++i)
      if (params.specs()[i].trainable)
        add(kMoment + params.specs()[i].name, params.specs()[i].file_shape(),
            optimizer->moment_values(static_cast<int>(i)));
  std::map<std::string, std::string> meta{
      {"format", "pt"}, {"convolt.card", to_json(card).dump()}, {"convolt.configuration", card.configuration}};
  if (state != nullptr) meta["convolt.state"] = to_json(*state).dump();
  write_safetensors(path, tensors, meta);
}

ModelCard read_card(const std::string& path) {
  const SafeTensors file = SafeTensors::read(path);
  const std::string& text = metadata(file, path, "convolt.card");
  return reading(path, "convolt.card", [&] {
    const json j = json::parse(text);
    ModelCard c;
    c.model = j.at("model");
    c.network = j.value("network", "");
    c.classes = j.at("classes");
    c.channels = j.at("channels");
    c.height = j.at("height");
    c.width = j.at("width");
    c.class_names = j.at("class_names").get<std::vector<std::string>>();
    c.preprocessing = preprocessing_from(j.at("preprocessing"));
    c.configuration =
        file.metadata().count("convolt.configuration") > 0 ? file.metadata().at("convolt.configuration") : "";
    return c;
  });
}

namespace {

// Pictures of one channel and weights for three.
void check_channels(const std::string& path, const ParamSpec& spec, const SafeTensor& t) {
  const Shape shape = spec.file_shape();
  if (shape.rank() == 4 && t.shape.size() == 4 && shape[1] == 1 && t.shape[1] == 3 && shape[0] == t.shape[0])
    throw FormatError(
        fmt::format("{}: '{}' takes pictures of 3 channels, but these have 1: expected colour pictures, or weights "
                    "trained on grey ones",
                    path, spec.name));
}

// The layer that makes the logits is the last one with parameters.
std::string head_of(const Params& params) {
  const std::string& last = params.specs().back().name;
  return last.substr(0, last.rfind('.') + 1);
}

bool other_outputs(const ParamSpec& spec, const SafeTensor& t) {
  std::vector<int64_t> expected = extents(spec.file_shape());
  if (expected.size() != t.shape.size()) return false;
  expected[0] = t.shape[0];
  return expected == t.shape;
}

// What of the file fits the parameters.
struct Matching {
  LoadReport report;
  std::vector<std::string> misshaped;
  std::vector<std::pair<int, const SafeTensor*>> found;
};

Matching match(const SafeTensors& file, const std::string& path, const Params& params, const LoadOptions& options) {
  Matching m;
  const std::string head = head_of(params);
  for (size_t i = 0; i < params.specs().size(); ++i) {
    const ParamSpec& spec = params.specs()[i];
    const SafeTensor* t = file.find(spec.name);
    if (t == nullptr) {
      m.report.missing.push_back(spec.name);
    } else if (t->shape == extents(spec.file_shape())) {
      m.found.emplace_back(static_cast<int>(i), t);
    } else if (options.finetune && spec.name.starts_with(head) && other_outputs(spec, *t)) {
      m.report.kept.push_back(spec.name);
    } else {
      check_channels(path, spec, *t);
      m.misshaped.push_back(fmt::format("{} {} for {}", spec.name, text(t->shape), spec.file_shape().to_string()));
    }
  }
  for (const SafeTensor& t : file.tensors())
    if (!t.name.starts_with("optim.") && !t.name.ends_with(kTracked) && params.find(t.name) < 0)
      m.report.unexpected.push_back(t.name);
  return m;
}

LoadReport load_weights(const SafeTensors& file, const std::string& path, Params& params, const LoadOptions& options) {
  Matching m = match(file, path, params, options);
  std::vector<std::string> parts;
  if (options.strict && !m.report.missing.empty()) parts.push_back("missing " + join(m.report.missing));
  if (options.strict && !m.report.unexpected.empty()) parts.push_back("unexpected " + join(m.report.unexpected));
  if (!m.misshaped.empty()) parts.push_back("of another shape " + join(m.misshaped));
  if (m.found.empty() && parts.empty()) parts.emplace_back("no name agrees");
  if (!parts.empty())
    throw FormatError(fmt::format("{}: its weights do not fit this network: {}", path, fmt::join(parts, "; ")));
  for (const auto& [i, t] : m.found) params.set_values(i, t->to_floats());
  for (const SafeTensor& t : file.tensors())
    if (t.name.ends_with(kTracked) && t.dtype == "I64" && t.bytes.size() == 8)
      std::memcpy(&params.batches_tracked, t.bytes.data(), 8);
  return m.report;
}

}  // namespace

LoadReport load_weights(const std::string& path, Params& params, const LoadOptions& options) {
  return load_weights(SafeTensors::read(path), path, params, options);
}

ModelInfo model_of(const ModelCard& card) {
  return card.network.empty() ? find_model(card.model) : parse_network(card.model, card.network);
}

TrainingState load_training(const std::string& path, Params& params, Sgd& optimizer) {
  const SafeTensors file = SafeTensors::read(path);
  const std::string& state_text = metadata(file, path, "convolt.state");
  const TrainingState state = reading(path, "convolt.state", [&] { return state_from(json::parse(state_text)); });
  load_weights(file, path, params, {});
  for (size_t i = 0; i < params.specs().size(); ++i) {
    const ParamSpec& spec = params.specs()[i];
    if (!spec.trainable) continue;
    const SafeTensor* t = file.find(kMoment + spec.name);
    if (t == nullptr || t->shape != extents(spec.file_shape()))
      throw FormatError(
          fmt::format("{}: it lacks the optimizer's moment of '{}'; resume from last.safetensors", path, spec.name));
    optimizer.set_moment_values(static_cast<int>(i), t->to_floats());
  }
  params.batches_tracked = state.batches_tracked;
  return state;
}

}  // namespace convolt
