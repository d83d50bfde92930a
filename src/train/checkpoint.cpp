#include "convolt/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <nlohmann/json.hpp>
#include <string_view>
#include <tuple>

#include "core/finite.h"
#include "graph/checkpoint_names.h"
#include "io/json_reason.h"
#include "io/safetensors.h"

namespace convolt {
namespace {

using nlohmann::json;

json to_json(const AugmentOptions& o) {
  return {{"height", o.height},
          {"width", o.width},
          {"channels", o.channels},
          {"geometry", static_cast<int>(o.geometry)},
          {"resize", o.resize},
          {"mean", o.mean},
          {"std", o.std},
          {"fill", o.fill},
          {"interpolation", static_cast<int>(o.interpolation)},
          {"border", static_cast<int>(o.border)}};
}

// An enumerator by number, at most `last`.
template <class E>
E enumerator(const json& j, const char* key, E last) {
  const int value = j.at(key);
  if (value < 0 || value > static_cast<int>(last))
    throw FormatError(fmt::format("its preprocessing has no {} {}; it comes from a newer Convolt", key, value));
  return static_cast<E>(value);
}

AugmentOptions preprocessing_from(const json& j) {
  AugmentOptions o;
  o.height = j.at("height");
  o.width = j.at("width");
  o.channels = j.at("channels");
  o.geometry = enumerator(j, "geometry", AugmentOptions::Geometry::crop_with_padding);
  o.resize = j.at("resize");
  o.mean = j.at("mean");
  o.std = j.at("std");
  o.fill = j.at("fill");
  o.interpolation = enumerator(j, "interpolation", AugmentOptions::Interpolation::bicubic);
  o.border = enumerator(j, "border", AugmentOptions::Border::reflect);
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

json to_json(const std::vector<KeptCheckpoint>& kept) {
  json list = json::array();
  for (const KeptCheckpoint& k : kept) list.push_back({k.step, k.value});
  return list;
}

json to_json(const std::optional<double>& value) { return value ? json(*value) : json(nullptr); }
std::optional<double> optional_from(const json& j) {
  return j.is_null() ? std::optional<double>() : std::optional(j.get<double>());
}

json to_json(const TrainingState& s) {
  return {{"step", s.step},
          {"epoch_open", s.epoch_open},
          {"best_top1", s.best_top1},
          {"best_step", s.best_step},
          {"best_value", to_json(s.best_value)},
          {"best_metric", s.best_metric},
          {"epochs_since_best", s.epochs_since_best},
          {"kept", to_json(s.kept)},
          {"batches_tracked", s.batches_tracked},
          {"loss_scale", s.loss_scale},
          {"good_steps", s.good_steps},
          {"skipped_steps", s.skipped_steps},
          {"bad_steps", s.bad_steps},
          {"bad_in_a_row", s.bad_in_a_row},
          {"rate_factor", s.rate_factor},
          {"plateau_best", to_json(s.plateau.best)},
          {"plateau_bad_epochs", s.plateau.bad_epochs},
          {"plateau_scale", s.plateau.scale},
          {"meters", to_json(s.meters)},
          {"reported", to_json(s.reported)},
          {"epoch_base", to_json(s.epoch_base)},
          {"device", s.device},
          {"kernels", s.kernels}};
}

TrainingState state_from(const json& j) {
  TrainingState s;
  s.step = j.at("step");
  s.epoch_open = j.value("epoch_open", false);  // older checkpoints are of closed epochs
  s.best_top1 = j.at("best_top1");
  s.best_step = j.at("best_step");
  s.best_value = optional_from(j.at("best_value"));
  s.best_metric = j.at("best_metric");
  s.epochs_since_best = j.at("epochs_since_best");
  for (const json& k : j.at("kept")) s.kept.push_back({k.at(0), k.at(1)});
  s.batches_tracked = j.at("batches_tracked");
  s.loss_scale = j.at("loss_scale");
  s.good_steps = j.at("good_steps");
  s.skipped_steps = j.at("skipped_steps");
  s.bad_steps = j.at("bad_steps");
  s.bad_in_a_row = j.at("bad_in_a_row");
  s.rate_factor = j.at("rate_factor");
  s.plateau.best = optional_from(j.at("plateau_best"));
  s.plateau.bad_epochs = j.at("plateau_bad_epochs");
  s.plateau.scale = j.at("plateau_scale");
  s.meters = meters_from(j.at("meters"));
  s.reported = meters_from(j.at("reported"));
  s.epoch_base = meters_from(j.at("epoch_base"));
  s.device = j.at("device");
  s.kernels = j.value("kernels", KernelChoices());  // checkpoints from before tuning have none
  return s;
}

// Calls read(), turning what nlohmann-json throws into an error of ours.
template <class F>
auto reading(const std::string& path, const char* what, F read) {
  try {
    return read();
  } catch (const json::exception& e) {
    throw FormatError(
        fmt::format("{}: its metadata '{}' is not what Convolt writes ({})", path, what, json_reason(e.what())));
  }
}

const std::string& metadata(const SafeTensors& file, const std::string& path, std::string_view key) {
  const auto found = file.metadata().find(std::string(key));
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

std::string moment_name(const Optimizer& optimizer, size_t which, const ParamSpec& spec) {
  return fmt::format("{}{}.{}", kMoments, optimizer.moments()[which], spec.name);
}

// Tensors of a file to be, with the values that they point to.
class Contents {
public:
  void add(const std::string& name, const Shape& shape, std::vector<float> values) {
    values_.push_back(std::move(values));
    tensors_.push_back({name, "F32", extents(shape), std::as_bytes(std::span(values_.back()))});
  }
  void add_params(const Params& params, const std::string& prefix) {
    for (size_t i = 0; i < params.specs().size(); ++i) {
      const ParamSpec& spec = params.specs()[i];
      std::vector<float> values = params.values(static_cast<int>(i));
      if (!all_finite(values))
        throw NonFiniteError("the values of '" + prefix + spec.name +
                             "' are not finite: no checkpoint is written of them; try a lower learning rate");
      add(prefix + spec.name, spec.file_shape(), std::move(values));
    }
  }
  void add_batches_tracked(const Params& params) {
    constexpr std::string_view kOfNorms = ".running_var";
    for (const ParamSpec& spec : params.specs())
      if (spec.name.ends_with(kOfNorms))
        tensors_.push_back({fmt::format("{}.{}", spec.name.substr(0, spec.name.size() - kOfNorms.size()), kTracked),
                            "I64",
                            {},
                            bytes_of(params.batches_tracked)});
  }
  void add_moments(const Optimizer& optimizer) {
    const auto& specs = optimizer.params().specs();
    for (size_t m = 0; m < optimizer.moments().size(); ++m)
      for (size_t i = 0; i < specs.size(); ++i)
        if (optimizer.updates(static_cast<int>(i)))
          add(moment_name(optimizer, m, specs[i]), specs[i].file_shape(),
              optimizer.moment_values(m, static_cast<int>(i)));
  }
  const std::vector<SafeTensor>& tensors() const { return tensors_; }

private:
  static std::span<const std::byte> bytes_of(const int64_t& value) { return std::as_bytes(std::span(&value, 1)); }
  std::deque<std::vector<float>> values_;
  std::vector<SafeTensor> tensors_;
};

json optimizer_json(const Optimizer& optimizer) {
  return {{"kind", name_of(optimizer.options().kind)},
          {"updates", optimizer.update_count()},
          {"average", optimizer.average() != nullptr}};
}

}  // namespace

void save_checkpoint(const std::string& path, const Params& params, const ModelCard& card, const Optimizer* optimizer,
                     const TrainingState* state) {
  if (card.model.empty() && card.network.empty())
    throw UsageError("the card of a checkpoint names no network: give it a model's name, or make it by card_of()");
  if (state != nullptr && optimizer == nullptr)
    throw UsageError("a checkpoint with the state of a training needs its optimizer too");
  if (optimizer != nullptr && &optimizer->params() != &params)
    throw UsageError("the optimizer of a checkpoint belongs to other Params");
  Contents contents;
  contents.add_params(params, "");
  contents.add_batches_tracked(params);
  std::map<std::string, std::string> meta{
      {"format", "pt"},
      {"convolt.card", to_json(card).dump(-1, ' ', false, json::error_handler_t::replace)},
      {"convolt.configuration", card.configuration}};
  if (optimizer != nullptr) {
    contents.add_moments(*optimizer);
    if (optimizer->average() != nullptr) contents.add_params(*optimizer->average(), std::string(kAverage));
    meta["convolt.optimizer"] = optimizer_json(*optimizer).dump();
  }
  if (state != nullptr) meta["convolt.state"] = to_json(*state).dump();
  write_safetensors(path, contents.tensors(), meta);
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
    if (!is_reserved(t.name) && params.find(t.name) < 0) m.report.unexpected.push_back(t.name);
  return m;
}

LoadReport load_weights(const SafeTensors& file, const std::string& path, Params& params, const LoadOptions& options) {
  Matching m = match(file, path, params, options);
  std::vector<std::string> parts;
  if (options.strict && !m.report.missing.empty()) parts.push_back("missing " + join(m.report.missing));
  if (options.strict && !m.report.unexpected.empty()) parts.push_back("unexpected " + join(m.report.unexpected));
  if (!m.misshaped.empty())
    parts.push_back("of another shape " + join(m.misshaped) +
                    (options.finetune ? "" : " (--finetune leaves out a last layer of another number of classes)"));
  if (m.found.empty() && parts.empty()) parts.emplace_back("no name agrees");
  if (!parts.empty())
    throw FormatError(fmt::format("{}: its weights do not fit this network: {}", path, fmt::join(parts, "; ")));
  std::vector<std::vector<float>> values;
  for (const auto& [i, t] : m.found)
    if (!all_finite(values.emplace_back(t->to_floats())))
      throw FormatError(
          fmt::format("{}: the values of '{}' are not finite; a training that diverged made them", path, t->name));
  for (size_t k = 0; k < values.size(); ++k) params.set_values(m.found[k].first, values[k]);
  for (const SafeTensor& t : file.tensors())
    if (t.name.ends_with(kTracked) && t.dtype == "I64" && t.bytes.size() == 8)
      std::memcpy(&params.batches_tracked, t.bytes.data(), 8);
  return m.report;
}

}  // namespace

LoadReport load_weights(const std::string& path, Params& params, const LoadOptions& options) {
  return load_weights(SafeTensors::read(path), path, params, options);
}

Network load_network(Context& context, const ModelCard& card, const std::string& weights) {
  Network n{card, std::make_unique<Graph>(), nullptr};
  build_model(*n.graph, model_of(card), {card.classes, card.height, card.width, card.channels});
  n.params = std::make_unique<Params>(Params::zeros(context, *n.graph));
  load_weights(weights, *n.params);
  return n;
}

Network load_network(Context& context, const std::string& checkpoint) {
  return load_network(context, read_card(checkpoint), checkpoint);
}

namespace {

// The values of a tensor that goes with a parameter.
std::vector<float> values_for(const SafeTensors& file, const std::string& path, const std::string& name,
                              const ParamSpec& spec) {
  const SafeTensor* t = file.find(name);
  if (t == nullptr || t->shape != extents(spec.file_shape()))
    throw FormatError(fmt::format(
        "{}: it lacks '{}', which this optimizer keeps; resume from last.safetensors, with the options of that run, or "
        "begin anew with its weights (--weights)",
        path, name));
  return t->to_floats();
}

void load_optimizer(const SafeTensors& file, const std::string& path, Optimizer& optimizer) {
  const std::string& text = metadata(file, path, "convolt.optimizer");
  const auto [kind, updates, average] = reading(path, "convolt.optimizer", [&] {
    const json j = json::parse(text);
    return std::tuple{j.at("kind").get<std::string>(), j.at("updates").get<int64_t>(), j.at("average").get<bool>()};
  });
  if (kind != name_of(optimizer.options().kind))
    throw FormatError(
        fmt::format("{}: trained with {}, not {}; give --opt {}", path, kind, name_of(optimizer.options().kind), kind));
  if (average != (optimizer.average() != nullptr))
    throw FormatError(fmt::format("{}: trained {} an average of the weights; {} --ema-decay", path,
                                  average ? "with" : "without", average ? "give" : "leave out"));
  const auto& specs = optimizer.params().specs();
  for (size_t i = 0; i < specs.size(); ++i) {
    const int param = static_cast<int>(i);
    if (average)
      optimizer.average()->set_values(param, values_for(file, path, std::string(kAverage) + specs[i].name, specs[i]));
    if (!optimizer.updates(param)) continue;
    for (size_t m = 0; m < optimizer.moments().size(); ++m)
      optimizer.set_moment_values(m, param, values_for(file, path, moment_name(optimizer, m, specs[i]), specs[i]));
  }
  optimizer.set_update_count(updates);
}

}  // namespace

TrainingState load_training(const std::string& path, Params& params, Optimizer& optimizer) {
  if (&optimizer.params() != &params) throw UsageError("the optimizer of a training belongs to other Params");
  const SafeTensors file = SafeTensors::read(path);
  if (file.metadata().count("convolt.card") > 0 && file.metadata().count("convolt.state") == 0)
    throw FormatError(path + ": holds a network, not a training to go on from; resume from last.safetensors");
  const std::string& state_text = metadata(file, path, "convolt.state");
  const TrainingState state = reading(path, "convolt.state", [&] { return state_from(json::parse(state_text)); });
  load_weights(file, path, params, {});
  load_optimizer(file, path, optimizer);
  params.batches_tracked = state.batches_tracked;
  if (optimizer.average() != nullptr) optimizer.average()->batches_tracked = state.batches_tracked;
  return state;
}

}  // namespace convolt
