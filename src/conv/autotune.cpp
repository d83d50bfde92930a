#include "conv/autotune.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

namespace convolt {
namespace {

constexpr std::array<std::string_view, 3> kPasses{"fprop", "dgrad", "wgrad"};

// As a field of a line.
std::string plain(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < ' '; }, ' ');
  return text;
}

// The library may give one name to what takes packed weights and to what takes plain ones.
std::string identity(const ConvKernel& kernel) {
  return plain(kernel.name() + (kernel.packed_bytes() > 0 ? ", packed weights" : ""));
}

std::string operation(ConvPrologue prologue, ConvEpilogue epilogue) {
  static constexpr std::array<std::string_view, 3> kPrologues{"", ", behind a batch norm",
                                                              ", behind relu of a batch norm"};
  static constexpr std::array<std::string_view, 10> kEpilogues{"",
                                                               ", bias",
                                                               ", bias and relu",
                                                               ", bias and relu6",
                                                               ", statistics",
                                                               ", through relu to a batch norm",
                                                               ", joined",
                                                               ", bias and relu with its mask",
                                                               ", with the bias's gradient",
                                                               ", through relu, with the bias's gradient"};
  return std::string(kPrologues.at(static_cast<size_t>(prologue))) +
         std::string(kEpilogues.at(static_cast<size_t>(epilogue)));
}

std::string text_of(const ConvDesc& d, const std::string& shape, bool training) {
  return fmt::format("{} {}, {}{}{}, weights packed {}", kPasses.at(static_cast<size_t>(d.pass)), shape,
                     name_of(d.dtype), d.tf32 ? " as tf32" : "", operation(d.prologue, d.epilogue),
                     training ? "each step" : "once");
}

// Results besides the first.
bool does_more(ConvEpilogue e) { return e >= ConvEpilogue::stats; }

ConvDesc as_convolution(const LinearDesc& d) {
  ConvDesc c{.pass = d.pass, .dtype = d.dtype, .tf32 = d.tf32, .epilogue = d.epilogue};
  c.geometry.n = d.rows;
  c.geometry.in_c = d.in;
  c.geometry.out_c = d.out;
  return c;
}

// One kernel that runs against others.
struct Runner {
  const ConvKernel* kernel;
  int runs = 1;  // in one sample
  std::vector<int64_t> samples;
  int64_t median() const {
    if (samples.empty()) return std::numeric_limits<int64_t>::max();
    std::vector<int64_t> sorted = samples;
    std::nth_element(sorted.begin(), sorted.begin() + static_cast<int64_t>(sorted.size() / 2), sorted.end());
    return sorted[sorted.size() / 2];
  }
};

// In turn, so that all see the same neighbours and clock rates. One twice as slow as the best is not looked at again.
void race(KernelTrial& trial, std::vector<Runner>& runners, int rounds) {
  constexpr int64_t kSample = 1'000'000;  // a sample should take a millisecond, for what one run costs besides
  for (Runner& r : runners) r.runs = static_cast<int>(std::clamp<int64_t>(kSample / trial.time(*r.kernel, 1), 1, 20));
  int64_t best = std::numeric_limits<int64_t>::max();
  for (int round = 0; round < rounds; ++round)
    for (Runner& r : runners) {
      if (!r.samples.empty() && r.median() / 2 > best) continue;
      r.samples.push_back(trial.time(*r.kernel, r.runs));
      best = std::min(best, r.median());
    }
}

// Memory for trials of as many of the kernels as it suffices for: those with the largest workspace are left out first.
std::unique_ptr<KernelTrial> make_trial(Context& context, const ConvDesc& desc, TrialOptions options,
                                        std::vector<const ConvKernel*>& kernels) {
  while (true) {
    options.workspace_bytes = options.packed_bytes = 0;
    int64_t least = std::numeric_limits<int64_t>::max();
    for (const ConvKernel* k : kernels) {
      options.workspace_bytes = std::max(options.workspace_bytes, k->workspace_bytes());
      options.packed_bytes = std::max(options.packed_bytes, k->packed_bytes());
      least = std::min(least, k->workspace_bytes());
    }
    try {
      return std::make_unique<KernelTrial>(context, desc, options);
    } catch (const OutOfMemoryError&) {
      if (least == options.workspace_bytes) throw;
      std::erase_if(kernels, [&](const ConvKernel* k) { return k->workspace_bytes() == options.workspace_bytes; });
    }
  }
}

// Each once, where several have one name.
std::vector<const ConvKernel*> distinct(const std::vector<std::unique_ptr<ConvKernel>>& kernels) {
  std::vector<const ConvKernel*> found;
  for (const auto& k : kernels)
    if (std::none_of(found.begin(), found.end(), [&](const auto* f) { return identity(*f) == identity(*k); }))
      found.push_back(k.get());
  return found;
}

}  // namespace

std::string_view name_of(Autotune mode) {
  return mode == Autotune::off ? "off" : mode == Autotune::quick ? "quick" : "full";
}

AllowedKernels::Kernels AllowedKernels::allowed(Kernels kernels) const {
  std::erase_if(kernels, [&](const auto& k) {
    return (options_.deterministic && !k->repeatable()) ||
           (options_.workspace_limit && k->workspace_bytes() > *options_.workspace_limit);
  });
  return kernels;
}

AllowedKernels::Kernels AllowedKernels::candidates(const ConvDesc& desc) { return allowed(provider_.candidates(desc)); }
AllowedKernels::Kernels AllowedKernels::candidates(const LinearDesc& desc) {
  return allowed(provider_.candidates(desc));
}
AllowedKernels::Kernels AllowedKernels::all_candidates(const ConvDesc& desc) {
  return allowed(provider_.all_candidates(desc));
}

std::string AllowedKernels::describe() const {
  std::string text = provider_.describe();
  if (options_.deterministic) text += ", with the same bits each time";
  if (options_.workspace_limit)
    text += fmt::format(", with a workspace of at most {} bytes (--workspace-limit)", *options_.workspace_limit);
  return text;
}

Autotuner::Autotuner(Context& context, ConvProvider& provider, const KernelOptions& options, bool training,
                     TuningTools tools)
    : context_(context),
      provider_(provider),
      options_(options),
      allowed_(provider, options),
      mode_(options.autotune.value_or(context.device().is_cuda() ? Autotune::quick : Autotune::off)),
      training_(training),
      tools_(std::move(tools)) {}

Autotuner::~Autotuner() {
  try {
    keep();
  } catch (...) {
  }
}

Autotuner::Choice Autotuner::choose(const ConvDesc& desc) {
  const std::string description = description_of(desc);
  return choose(offered(desc, description), desc, description);
}

std::string Autotuner::description_of(const ConvDesc& desc) const {
  return text_of(desc, desc.geometry.to_string(), training_);
}

Autotuner::Kernels Autotuner::offered(const ConvDesc& desc, const std::string& description) {
  Kernels kernels = allowed_.candidates(desc);
  const auto lacks = [&](const std::string& name) {
    return std::none_of(kernels.begin(), kernels.end(), [&](const auto& k) { return identity(*k) == name; });
  };
  bool longer = mode_ == Autotune::full;
  if (const auto wanted = options_.recorded.find(description); wanted != options_.recorded.end()) {
    longer = lacks(wanted->second);
  } else if (mode_ == Autotune::quick) {
    read_cache();
    const Timings& known = table_[{environment_, description}];
    longer = std::any_of(known.begin(), known.end(), [&](const auto& timing) { return lacks(timing.first); });
  }
  return longer ? allowed_.all_candidates(desc) : std::move(kernels);
}

Autotuner::Choice Autotuner::choose(const LinearDesc& desc) {
  const std::string shape = fmt::format("linear n{} {} -> {}", desc.rows, desc.in, desc.out);
  const ConvDesc same = as_convolution(desc);
  return choose(allowed_.candidates(desc), same, text_of(same, shape, training_));
}

Autotuner::Choice Autotuner::choose(Kernels kernels, const ConvDesc& desc, const std::string& description) {
  if (kernels.empty()) return {};
  Choice choice;
  const size_t chosen = choice_of(kernels, desc, description, choice.origin);
  choices_[description] = identity(*kernels[chosen]);
  choice.kernel = std::move(kernels[chosen]);
  return choice;
}

size_t Autotuner::choice_of(const Kernels& kernels, const ConvDesc& desc, const std::string& description,
                            Origin& origin) {
  if (const auto wanted = options_.recorded.find(description); wanted != options_.recorded.end()) {
    const auto found =
        std::find_if(kernels.begin(), kernels.end(), [&](const auto& k) { return identity(*k) == wanted->second; });
    origin = Origin::recorded;
    if (found != kernels.end()) return static_cast<size_t>(found - kernels.begin());
    missing_.push_back(fmt::format("'{}' of {}", wanted->second, description));
  }
  origin = Origin::order;
  // A single kernel needs no timing; one with a fusion is looked at all the same before it is trusted.
  const bool single = kernels.size() == 1 && desc.prologue == ConvPrologue::none && !does_more(desc.epilogue);
  if (mode_ == Autotune::off || single || !PlainSums::known(desc)) return first_of(kernels);
  const auto quickest = timed(kernels, desc, description);
  if (!quickest) return first_of(kernels);
  origin = Origin::tuned;
  return quickest->index;
}

std::optional<Autotuner::Quickest> Autotuner::timed(const Kernels& kernels, const ConvDesc& desc,
                                                    const std::string& description) {
  read_cache();
  const TuningKey key{environment_, description};
  if (!measured(kernels, table_[key])) measure(kernels, desc, description);
  std::optional<Quickest> best;
  for (size_t i = 0; i < kernels.size(); ++i) {
    const auto timing = table_[key].find(identity(*kernels[i]));
    if (timing == table_[key].end() || timing->second.nanoseconds == Timing::kWrong) continue;
    if (best && timing->second.nanoseconds >= best->nanoseconds) continue;
    best = {i, timing->second.nanoseconds};
  }
  return best;
}

bool Autotuner::pays(const ConvDesc& fused, const ConvDesc& plain, int64_t apart_ns) {
  const auto recorded = [&](const ConvDesc& desc) { return options_.recorded.contains(description_of(desc)); };
  if (mode_ == Autotune::off || recorded(fused)) return true;
  if (recorded(plain)) return false;
  const auto quickest = [&](const ConvDesc& desc) -> std::optional<Quickest> {
    const std::string description = description_of(desc);
    const Kernels kernels = offered(desc, description);
    if (kernels.empty() || !PlainSums::known(desc)) return {};
    try {
      return timed(kernels, desc, description);
    } catch (const WrongKernelsError&) {  // for choose() to report
      return {};
    }
  };
  const auto together = quickest(fused), alone = quickest(plain);
  return !together || !alone || together->nanoseconds <= alone->nanoseconds + apart_ns;
}

// Without training weights are packed once, and packing costs nothing.
size_t Autotuner::first_of(const Kernels& kernels) const {
  if (training_) return 0;
  const auto packs = std::find_if(kernels.begin(), kernels.end(), [](const auto& k) { return k->packed_bytes() > 0; });
  return packs == kernels.end() ? 0 : static_cast<size_t>(packs - kernels.begin());
}

bool Autotuner::measured(const Kernels& kernels, const Timings& timings) const {
  return std::all_of(kernels.begin(), kernels.end(), [&](const auto& k) {
    const auto known = timings.find(identity(*k));
    return known != timings.end() && (known->second.full || mode_ == Autotune::quick);
  });
}

void Autotuner::measure(const Kernels& kernels, const ConvDesc& desc, const std::string& description) {
  const std::vector<const ConvKernel*> all = distinct(kernels);
  std::vector<const ConvKernel*> tried = all;
  std::unique_ptr<KernelTrial> trial;
  try {
    trial = make_trial(context_, desc, {.packs_each_step = training_, .clock = tools_.clock}, tried);
  } catch (const OutOfMemoryError& e) {
    return warn(fmt::format("{} is not tuned: {}", description, e.what()));
  }
  ++context_.counters().tunings;
  Timings timings;
  std::vector<Runner> runners;
  for (const ConvKernel* k : all) {
    timings[identity(*k)] = {.full = mode_ == Autotune::full};
    const bool fits = std::find(tried.begin(), tried.end(), k) != tried.end();
    const std::string wrong = fits ? trial->check(*k) : "there is no memory for its workspace";
    if (wrong.empty())
      runners.push_back({k});
    else
      warn(fmt::format("the kernel '{}' may not compute {}: {}", identity(*k), description, wrong));
  }
  if (runners.empty())
    throw WrongKernelsError(
        fmt::format("no kernel of {} computes {} right; --autotune off takes the first all the same",
                    provider_.describe(), description));
  race(*trial, runners, mode_ == Autotune::full ? 10 : 3);
  for (const Runner& r : runners) timings[identity(*r.kernel)].nanoseconds = r.median();
  const TuningTable found{{{environment_, description}, timings}};
  merge(table_, found);
  merge(fresh_, found);
}

void Autotuner::read_cache() {
  if (cache_read_) return;
  cache_read_ = true;
  const std::string driver = context_.driver();
  environment_ = plain(context_.describe() + (driver.empty() ? "" : ", " + driver) + ", " + provider_.describe());
  try {
    table_ = tools_.cache.read();
  } catch (const DataError& e) {
    warn(fmt::format("{}; kernels are timed anew", e.what()));
  }
}

void Autotuner::keep() {
  const TuningTable measured = std::exchange(fresh_, {});
  if (measured.empty()) return;
  try {
    tools_.cache.add(measured);
  } catch (const Error& e) {
    warn(fmt::format("the timings of kernels are lost: {}", e.what()));
  }
}

void Autotuner::finish() {
  keep();
  if (missing_.empty()) return;
  warn(
      fmt::format("{} of the recorded kernels {} not offered here, the first being {}; others take their place, and "
                  "the results have other last bits",
                  missing_.size(), missing_.size() == 1 ? "is" : "are", missing_[0]));
  missing_.clear();
}

void Autotuner::warn(const std::string& message) const {
  if (options_.warning) options_.warning(message);
}

}  // namespace convolt
