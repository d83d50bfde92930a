// The inside of a plan that runs: what was compiled, its memory, launches and the ring of step inputs.
#pragma once

#include <array>
#include <span>

#include "graph/compiled_plan.h"
#include "loss.h"

namespace convolt {

struct Plan::Impl final : CompiledPlan, Binding {
  Impl(const Graph& graph, Params& params, const PlanOptions& options);
  ~Impl() override;

  // Binding
  Tensor tensor(ValueId id) const override;
  UpdateArgs update_args(const Op& op) const override;

  void allocate();
  // Fills what stays in the slab from step to step, at first and whenever another plan has used it.
  void occupy();
  void bind_all();
  void point(OptimizerTensor& t, int param, ValueId gradient_value) const;
  void upload_tables();

  // Waits for step n-2 and throws its error, if any.
  void wait_for_place();
  void submit(const StepInput& input_values);
  void run_prepare_if_needed();
  void count_micro_batch(StepInput& input_values);
  void launch_step();
  // Runs the step's ops in order on the calling thread (CPU: the queue's).
  void execute(Stream s);
  DeviceError failure(const Op& op, const std::exception& e) const;
  // Names the first row that counts and whose label is no class.
  std::string find_bad_label(const StepInput& input_values);
  // The same of labels on the host; without weights all rows count.
  std::string bad_label(std::span<const int32_t> labels, std::span<const float> weights) const;
  // Throws UsageError for what no step can run on.
  void check_input(const StepInput& input_values) const;
  // Under AddressSanitizer: makes only what is alive at op i accessible.
  void open_memory(size_t i) const;
  void close_memory(size_t i) const;

  template <class T>
  void read_back(T* to, const void* from, int64_t bytes) {
    context.compute().copy(to, from, bytes);
    context.compute().synchronize();
  }

  Context& context;
  Params& params;
  std::shared_ptr<Buffer> slab;  // perhaps of several plans, which use it in turn
  bool lent = false;             // another's
  std::shared_ptr<const Impl*> occupant = std::make_shared<const Impl*>(nullptr);  // whose turn it is there
  std::vector<Buffer> separate;  // CONVOLT_SLAB=separate: one allocation for each group of values
  std::vector<Launch> prepare_launches, step_launches;
  int64_t prepared_version = 0;
  std::unique_ptr<RecordedWork> recorded_step;  // from the second step on

  // A step's input is written to a pinned place that the copy reads later: four places, of which two can be in use.
  static constexpr size_t kRing = 4;
  Buffer pinned_inputs;
  std::array<Event, kRing> step_done;
  int64_t steps = 0;
  // With accumulation: the micro-batch to come, and the weights of the update's rows so far.
  int micro_batch = 0;

  struct ReadBack {
    Meters meters;
    StepStatus status;
  };
  Buffer pinned_read_backs;
  std::array<Event, kRing> read_back_done;
  std::array<int64_t, kRing> read_back_step{};
  int64_t read_backs = 0, readings_taken = 0;
};

}  // namespace convolt
