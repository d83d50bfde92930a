// Chooses among the kernels of a description: by what was recorded, by what was measured before, by measuring now, or
// by the provider's order.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "conv/conv.h"
#include "conv/kernel_trial.h"
#include "conv/tuning_file.h"
#include "convolt/autotune.h"

namespace convolt {

// The kernels of a provider that the options allow.
class AllowedKernels final : public ConvProvider {
public:
  AllowedKernels(ConvProvider& provider, const KernelOptions& options) : provider_(provider), options_(options) {}
  std::vector<std::unique_ptr<ConvKernel>> candidates(const ConvDesc& desc) override;
  std::vector<std::unique_ptr<ConvKernel>> candidates(const LinearDesc& desc) override;
  std::vector<std::unique_ptr<ConvKernel>> all_candidates(const ConvDesc& desc) override;
  // With what the options ask for, where they leave something out.
  std::string describe() const override;
  int channel_alignment() const override { return provider_.channel_alignment(); }
  DeviceRates rates() const override { return provider_.rates(); }

private:
  using Kernels = std::vector<std::unique_ptr<ConvKernel>>;
  Kernels allowed(Kernels kernels) const;
  ConvProvider& provider_;
  const KernelOptions& options_;
};

// Where timings come from and go to.
struct TuningTools {
  TuningCache cache;
  Clock clock = steady_clock();
};

// Every kernel of a description was tried and is wrong.
class WrongKernelsError : public DeviceError {
public:
  using DeviceError::DeviceError;
};

// Chooses the kernels of one plan. One thread; context, provider and options must outlive it.
class Autotuner {
public:
  enum class Origin : uint8_t { order, tuned, recorded };
  struct Choice {
    std::shared_ptr<ConvKernel> kernel;  // null where no kernel is allowed
    Origin origin = Origin::order;
  };

  // training: weights are packed in each step, else once.
  Autotuner(Context& context, ConvProvider& provider, const KernelOptions& options, bool training,
            TuningTools tools = {});
  // Keeps what was measured, where finish() was not reached.
  ~Autotuner();
  Autotuner(const Autotuner&) = delete;
  Autotuner& operator=(const Autotuner&) = delete;

  // What may be chosen from.
  ConvProvider& allowed() { return allowed_; }
  Choice choose(const ConvDesc& desc);
  Choice choose(const LinearDesc& desc);
  // Whether the quickest kernel of `fused` takes no longer than that of `plain` and `apart_ns` for what it then leaves
  // to another kernel; true where nothing is timed. What was recorded decides as it did then.
  bool pays(const ConvDesc& fused, const ConvDesc& plain, int64_t apart_ns);
  // Keeps what was measured, and warns of recorded kernels that are no longer there.
  void finish();
  // All that was chosen so far.
  const KernelChoices& choices() const { return choices_; }

private:
  using Kernels = std::vector<std::unique_ptr<ConvKernel>>;

  // By the longer search where the mode is full, and where what was recorded or timed before is not among the usual.
  Kernels offered(const ConvDesc& desc, const std::string& description);
  Choice choose(Kernels kernels, const ConvDesc& desc, const std::string& description);
  size_t choice_of(const Kernels& kernels, const ConvDesc& desc, const std::string& description, Origin& origin);
  struct Quickest {
    size_t index;  // of the kernels
    int64_t nanoseconds;
  };
  // By what was measured, now where it was not before; none where no kernel is right.
  std::optional<Quickest> timed(const Kernels& kernels, const ConvDesc& desc, const std::string& description);
  std::string description_of(const ConvDesc& desc) const;
  size_t first_of(const Kernels& kernels) const;
  // Where all kernels have been measured as thoroughly as is asked for.
  bool measured(const Kernels& kernels, const Timings& timings) const;
  void measure(const Kernels& kernels, const ConvDesc& desc, const std::string& description);
  void read_cache();
  void keep();
  void warn(const std::string& message) const;

  Context& context_;
  ConvProvider& provider_;
  const KernelOptions& options_;
  AllowedKernels allowed_;
  Autotune mode_;
  bool training_;
  TuningTools tools_;
  std::string environment_;
  bool cache_read_ = false;
  TuningTable table_, fresh_;
  KernelChoices choices_;
  std::vector<std::string> missing_;  // "'kernel' of description"
};

}  // namespace convolt
