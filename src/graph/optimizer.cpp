#include "convolt/optimizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <regex>
#include <string_view>
#include <unordered_set>

#include "convolt/step.h"
#include "graph/file_layout.h"

namespace convolt {

namespace {

constexpr std::array<std::pair<OptimizerKind, std::string_view>, 8> kNames{{{OptimizerKind::sgd, "sgd"},
                                                                            {OptimizerKind::adam, "adam"},
                                                                            {OptimizerKind::adamw, "adamw"},
                                                                            {OptimizerKind::rmsprop, "rmsprop"},
                                                                            {OptimizerKind::lars, "lars"},
                                                                            {OptimizerKind::lion, "lion"},
                                                                            {OptimizerKind::muon, "muon"},
                                                                            {OptimizerKind::lamb, "lamb"}}};

void require(bool good, const std::string& message) {
  if (!good) throw UsageError("optimizer: " + message);
}

// No comparison holds for NaN.
void check(const OptimizerOptions& o) {
  using Kind = OptimizerKind;
  const auto in_range = [](double v, double low, double high) { return v >= low && v < high; };
  require(static_cast<size_t>(o.kind) < kNames.size(), "a kind that there is none of");
  const std::string kind(name_of(o.kind));
  require(in_range(o.momentum, 0, 1.0001), fmt::format("momentum is {}: expected 0 to 1", o.momentum));
  require(!o.nesterov || (o.kind == Kind::sgd && o.momentum > 0),
          "Nesterov momentum is for sgd with a momentum above 0, found " + kind + fmt::format(" with {}", o.momentum));
  if (o.betas)
    for (const double beta : *o.betas)
      require(in_range(beta, 0, 1), fmt::format("a beta is {}: expected 0 <= beta < 1", beta));
  require(in_range(o.alpha, 0, 1), fmt::format("alpha is {}: expected 0 <= alpha < 1", o.alpha));
  require(eps_of(o) >= 0, fmt::format("eps is {}: expected at least 0", eps_of(o)));
  require(in_range(o.muon_momentum, 0, 1),
          fmt::format("muon's momentum is {}: expected 0 <= momentum < 1", o.muon_momentum));
  require(o.muon_iterations >= 1 && o.muon_iterations <= 100,
          fmt::format("muon's iterations are {}: expected 1 to 100", o.muon_iterations));
  require(o.trust > 0, fmt::format("the trust coefficient is {}: expected above 0", o.trust));
  require(o.weight_decay >= 0, fmt::format("weight decay is {}: expected at least 0", o.weight_decay));
  require(clip_norm_of(o) >= 0 && o.clip_adaptive >= 0,
          "a clipping limit is negative: expected at least 0, 0 for none");
  require(o.clip_adaptive == 0 || (o.kind != Kind::lars && o.kind != Kind::muon && o.kind != Kind::lamb),
          "adaptive clipping and " + kind + " both scale the gradients by norms; give one");
  require(clip_norm_of(o) == 0 || o.clip_adaptive == 0,
          "clipping by the global norm and adaptive clipping exclude each other; give one");
  require(o.layer_decay > 0 && o.layer_decay <= 1,
          fmt::format("layer decay is {}: expected 0 < decay <= 1", o.layer_decay));
  require(in_range(o.ema_decay, 0, 1), fmt::format("the EMA's decay is {}: expected 0 <= decay < 1", o.ema_decay));
}

std::vector<std::string> moment_names(const OptimizerOptions& o) {
  switch (o.kind) {
    case OptimizerKind::sgd:
      return o.momentum > 0 ? std::vector<std::string>{"momentum"} : std::vector<std::string>{};
    case OptimizerKind::adam:
    case OptimizerKind::adamw:
    case OptimizerKind::lamb:
      return {"exp_avg", "exp_avg_sq"};
    case OptimizerKind::rmsprop:
      return o.momentum > 0 ? std::vector<std::string>{"square_avg", "momentum"}
                            : std::vector<std::string>{"square_avg"};
    case OptimizerKind::lars:
    case OptimizerKind::muon:
      return {"momentum"};
    case OptimizerKind::lion:
      return {"exp_avg"};
  }
  return {};
}

bool is_vector(const ParamSpec& spec) { return spec.shape.rank() == 1; }

// "layer1.0.conv1" of "layer1.0.conv1.weight", "layer1.0" of that; empty where there is no more.
std::string_view parent_of(std::string_view name) {
  const size_t dot = name.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : name.substr(0, dot);
}

// The block that a module is in, by the first components of its name that have a number: words with one, then numbers
// alone. "layer1.0" of "layer1.0.downsample", "trunk.block1.block1-0" of "trunk.block1.block1-0.f.a"; empty where no
// component has one.
std::string_view block_of(std::string_view module) {
  size_t length = 0;
  bool numbers_alone = false;
  for (size_t begin = 0; begin < module.size();) {
    const size_t end = std::min(module.find('.', begin), module.size());
    const std::string_view component = module.substr(begin, end - begin);
    const auto is_digit = [](unsigned char c) { return std::isdigit(c) != 0; };
    const bool number = std::ranges::all_of(component, is_digit), numbered = std::ranges::any_of(component, is_digit);
    if (numbers_alone ? !number : length > 0 && !numbered) break;
    if (numbered) length = end;
    numbers_alone = number;
    begin = end + 1;
  }
  return module.substr(0, length);
}

// The layer (of OptimizerOptions::layer_decay) of each parameter, from 0. What stands alone, a convolution or a norm,
// is no block though its name may have a number: only a module with others inside can be one.
std::vector<int> layers_of(const std::vector<ParamSpec>& specs) {
  std::unordered_set<std::string_view> with_others;
  for (const ParamSpec& spec : specs)
    for (std::string_view module = parent_of(parent_of(spec.name)); !module.empty(); module = parent_of(module))
      with_others.insert(module);
  std::vector<int> layers;
  std::string_view block;
  bool has_weight = false;  // the last layer; the next weight outside of blocks begins another
  for (const ParamSpec& spec : specs) {
    const std::string_view module = parent_of(spec.name);
    const std::string_view found = block_of(with_others.contains(module) ? module : parent_of(module));
    const bool weight = !is_vector(spec);
    const bool begins = layers.empty() || found != block || (found.empty() && weight && has_weight);
    layers.push_back(layers.empty() ? 0 : layers.back() + (begins ? 1 : 0));
    has_weight = begins ? weight : has_weight || weight;
    block = found;
  }
  return layers;
}

// The number of the rate of a group that trains for so many epochs.
int rate_of_own(double epochs, std::vector<double>& own) {
  const auto found = std::find(own.begin(), own.end(), epochs);
  const auto index = static_cast<int>(found - own.begin());
  if (found == own.end()) own.push_back(epochs);
  require(index < kOwnRates, fmt::format("groups train for more than {} different numbers of epochs", kOwnRates));
  return 1 + index;
}

void apply_groups(const std::vector<ParamGroup>& groups, const std::vector<ParamSpec>& specs,
                  std::vector<Optimizer::Settings>& settings, std::vector<double>& own_epochs) {
  for (const ParamGroup& group : groups) {
    std::regex pattern;
    try {
      pattern = std::regex(group.pattern);
    } catch (const std::regex_error& e) {
      throw UsageError(fmt::format("'{}' is no regular expression: {}", group.pattern, e.what()));
    }
    require(group.lr_scale >= 0 && group.weight_decay.value_or(0) >= 0,
            fmt::format("the group '{}' has a negative rate or decay: expected at least 0", group.pattern));
    require(group.epochs >= 0 && std::isfinite(group.epochs),
            fmt::format("the group '{}' trains for {} epochs: expected at least 0", group.pattern, group.epochs));
    const int rate = group.epochs > 0 ? rate_of_own(group.epochs, own_epochs) : 0;
    bool any = false;
    for (size_t i = 0; i < specs.size(); ++i) {
      if (!specs[i].trainable || !std::regex_search(specs[i].name, pattern)) continue;
      any = true;
      settings[i].lr_scale *= group.lr_scale;
      settings[i].weight_decay = group.weight_decay.value_or(settings[i].weight_decay);
      settings[i].frozen = settings[i].frozen || group.frozen;
      if (rate > 0) settings[i].rate = rate;
    }
    if (!any)
      throw UsageError(fmt::format("no parameter's name has '{}' in it; the names are like '{}' and '{}'",
                                   group.pattern, specs.front().name, specs.back().name));
  }
}

// The layer of a parameter: its name without the last part, or all of one that has no parts.
std::string layer_of(const ParamSpec& spec) { return spec.name.substr(0, spec.name.rfind('.')); }

std::vector<Optimizer::Settings> settings_of(const OptimizerOptions& o, const std::vector<ParamSpec>& specs,
                                             std::vector<double>& own_epochs) {
  std::vector<Optimizer::Settings> settings(specs.size());
  const std::vector<int> layers = layers_of(specs);
  std::string last_layer;
  for (const ParamSpec& spec : specs)
    if (spec.trainable) last_layer = layer_of(spec);
  for (size_t i = 0; i < specs.size(); ++i) {
    float own = -1;
    if (!specs[i].decays)
      own = o.norm_weight_decay;
    else if (is_vector(specs[i]))
      own = o.bias_weight_decay;
    settings[i].weight_decay = own >= 0 ? own : o.weight_decay;
    settings[i].lr_scale = static_cast<float>(std::pow(static_cast<double>(o.layer_decay), layers.back() - layers[i]));
    settings[i].clipped = layer_of(specs[i]) != last_layer;
  }
  apply_groups(o.groups, specs, settings, own_epochs);
  return settings;
}

Buffer zeros(Context& context, int64_t bytes) {
  Buffer buffer(context, bytes);
  const std::vector<char> values(static_cast<size_t>(bytes), 0);
  context.compute().copy(buffer.data(), values.data(), bytes);
  context.compute().synchronize();
  return buffer;
}

}  // namespace

std::string_view name_of(OptimizerKind kind) { return kNames[static_cast<size_t>(kind)].second; }

OptimizerKind optimizer_kind_from_name(std::string_view name) {
  for (const auto& [kind, known] : kNames)
    if (name == known) return kind;
  throw UsageError(
      fmt::format("unknown optimizer '{}': expected sgd, adam, adamw, rmsprop, lars, lion, muon or lamb", name));
}

std::array<double, 2> betas_of(const OptimizerOptions& o) {
  return o.betas.value_or(std::array{0.9, o.kind == OptimizerKind::lion ? 0.99 : 0.999});
}

double eps_of(const OptimizerOptions& o) { return o.eps.value_or(o.kind == OptimizerKind::lamb ? 1e-6 : 1e-8); }

float clip_norm_of(const OptimizerOptions& o) {
  return o.clip_norm.value_or(o.kind == OptimizerKind::lamb ? 1.F : 0.F);
}

Optimizer::Optimizer(Params& params, OptimizerOptions options) : params_(&params), options_(std::move(options)) {
  check(options_);
  settings_ = settings_of(options_, params.specs(), own_epochs_);
  moments_ = moment_names(options_);
  if (!moments_.empty())
    slab_ = zeros(params.context(), params.trainable_bytes() * static_cast<int64_t>(moments_.size()));
  count_ = zeros(params.context(), sizeof(int64_t));
  if (options_.ema_decay > 0) average_ = std::make_unique<Params>(params.clone());
}

const Optimizer::Settings& Optimizer::settings(int i) const {
  params_->spec(i);  // that there is one
  return settings_[static_cast<size_t>(i)];
}

bool Optimizer::updates(int i) const { return params_->spec(i).trainable && !settings(i).frozen; }

bool Optimizer::is_matrix(int i) const {
  return options_.kind == OptimizerKind::muon && params_->spec(i).file == ParamSpec::File::oihw;
}

Tensor Optimizer::moment(size_t which, int i) const {
  if (which >= moments_.size() || !params_->spec(i).trainable)
    throw UsageError(fmt::format("there is no moment {} of '{}': {} keeps {} of each trainable parameter", which,
                                 params_->spec(i).name, name_of(options_.kind), moments_.size()));
  return {DType::f32, params_->tensor(i).shape,
          slab_.as<char>() + static_cast<int64_t>(which) * params_->trainable_bytes() + params_->offset(i)};
}

std::vector<float> Optimizer::moment_values(size_t which, int i) const {
  return read_file_layout(params_->context(), moment(which, i), params_->spec(i));
}

void Optimizer::set_moment_values(size_t which, int i, const std::vector<float>& values) {
  write_file_layout(params_->context(), moment(which, i), params_->spec(i), values);
}

int64_t Optimizer::update_count() const {
  int64_t count = 0;
  params_->context().compute().copy(&count, count_.data(), sizeof count);
  params_->context().compute().synchronize();
  return count;
}

void Optimizer::set_update_count(int64_t count) {
  params_->context().compute().copy(count_.data(), &count, sizeof count);
  params_->context().compute().synchronize();
}

int64_t Optimizer::bytes() const { return slab_.bytes() + count_.bytes() + (average_ ? average_->bytes() : 0); }

}  // namespace convolt
