// A graph compiled for one batch size, dtype, device and purpose: shapes, lifetimes, one memory slab, kernels,
// workspaces and the order of the whole step are fixed before the first step.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "convolt/augment.h"
#include "convolt/autotune.h"
#include "convolt/graph.h"
#include "convolt/loss.h"
#include "convolt/optimizer.h"
#include "convolt/params.h"
#include "convolt/step.h"

namespace convolt {

// Rewrites of the op list; each may be switched off without changing what is computed (beyond rounding where it says
// so).
struct Passes {
  bool fold = true;       // inference batch norm into the convolution before it (rounds differently)
  bool fuse = true;       // scale-bias + add + activation in one sweep; bias + activation into the convolution
                          // or linear layer (rounds the bias to 16 bits); max pools before activations
  bool in_place = true;   // an output takes the memory of an input that nobody reads again
  bool dead_code = true;  // ops whose results nobody reads
  // Of training steps. The first three where the device's library has kernels for them.
  bool statistics = true;  // batch statistics in the epilogue of the convolution before (plain sums)
  bool prologue = true;    // scale-bias-ReLU on load of the convolutions behind a batch norm (rounds scale and bias)
  bool dgrad = true;       // gradient of ReLU and sums of a batch norm's gradient in the epilogue of a convolution's
  bool pool = true;        // batch norm, ReLU and max pool in one sweep
  bool block_end = true;   // batch norms of both branches, addition and ReLU of a residual block in one sweep each way
  bool sweeps = true;  // scales, stochastic depth and addition at the end of a branch in one sweep each way; sums of
                       // gradients, for biases and layer norms, in the sweep that makes the gradient
  // Where the device's library has kernels for it: gradients of biases and of ReLUs in the epilogues of linear layers'
  // gradients (in 16 bits rounds those of biases).
  bool linear = true;
  // Of all steps, in 16 bits where the library wants channels in eights: pictures laid out for the first convolution,
  // as blocks of pixels with channels filled up, so that it has a stride of 1 (adds up in another order).
  bool stem = true;
  // No rewrite at all.
  static Passes none() { return {false, false, false, false, false, false, false, false, false, false, false, false}; }
};

class Plan;

// What a graph is compiled for.
struct PlanOptions {
  int batch = 1;                   // rows of each step
  DType dtype = DType::f32;        // of activations: f32, bf16 or f16
  bool tf32 = false;               // f32 on CUDA may multiply in tf32
  bool training = false;           // gradients; batch statistics; dropout
  int height = 0, width = 0;       // of the pictures; 0: the graph's
  LossOptions loss;                // training: what is minimised; evaluation: what the meters sum up
  Optimizer* optimizer = nullptr;  // training: the step ends with its update; without one the gradients are left to be
                                   // read
  // With an optimizer: each run() takes a micro-batch, and each `accumulate`-th ends with an update by the mean
  // gradient of the rows of all of them. StepInput::step counts updates.
  int accumulate = 1;
  // The step begins with this augmentation of StepInput::records; without it, it reads f32 pictures from
  // StepInput::images.
  std::optional<AugmentOptions> augment;
  // The step mixes its pictures, whichever way they come, and in the loss their labels as StepInput::mixes says. For
  // losses of labels, without ignore_index, not for custom ones.
  bool mixing = false;
  // After a step the logits lie as f32 at device_logits(), for StepInput::teacher of another plan on the same queue.
  bool expose_logits = false;
  Passes passes;          // which rewrites are on
  KernelOptions kernels;  // how convolutions and linear layers get theirs
  // Bytes of device memory that the plan may take, Params and optimizer included; without a budget, what is free on the
  // device. In training, what does not fit makes forward ops run again before the backward ops that read what they
  // make: those that take the least time, and the same bits.
  std::optional<int64_t> memory_budget;
  // A plan of the same Params, for pictures of another size say, in whose slab this one lies where it fits: of such
  // plans only one is in use at a time (Plan::take_over()).
  const Plan* in_slab_of = nullptr;
  // Fusions of convolutions that the device has no kernel for are made of plain ones all the same: a proof of the
  // passes on any device, and no faster.
  bool compose_fusions = false;
};

// Sums over the rows so far, weighted.
struct MeterValues {
  double loss = 0, weight = 0, top1 = 0, top5 = 0;  // divide by weight: the mean loss, and the parts that are right
};

// The meters and the status at one point of the queue.
struct MeterReading {
  int64_t step = 0;             // what request_meters() was given; -1 from meters()
  MeterValues values;           // the sums so far
  int64_t first_bad_step = -1;  // the first step whose loss was not finite; -1: all were
  float gradient_norm = 0;      // of the last update before clipping; 0 where nobody needs it
  // Of training with a policy for bad steps: the last one, how many there were, in all and just now, and what the
  // learning rates are multiplied with by now.
  int64_t last_bad_step = -1;
  int32_t bad_steps = 0, bad_in_a_row = 0;
  float rate_factor = 1;
  // Of training in f16: what the loss is multiplied with by now, and how many updates were skipped in all since a
  // gradient overflowed under it.
  float loss_scale = 1;
  int32_t skipped_steps = 0;
};

// All calls from one thread. Params (and optimizer) must outlive the plan. One that was moved from can be destroyed or
// assigned to, no more.
class Plan {
public:
  // Compiles and allocates everything, after timing kernels where the options ask for it. Throws UsageError, ShapeError
  // or DeviceError for what cannot be done, ShapeError for Params of another graph, and OutOfMemoryError. The graph
  // need not outlive it.
  Plan(const Graph& graph, Params& params, const PlanOptions& options);
  ~Plan();
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  Plan(Plan&&) noexcept;
  Plan& operator=(Plan&&) noexcept;

  // Queues one step; returns at once, but waits for step n-2 when it is still running. In a training plan with an
  // optimizer it ends with the update. What the input points to must stay until the compute queue has passed the step.
  // It wants records and pixels (with an augmentation) or images; weights, and labels or the targets that the loss is
  // of (of rows that do not count they may be anything); a teacher's logits where training reads them. Throws
  // UsageError where one is null, for another number of rows than the plan's batch where the input says it, and for a
  // learning rate or sum of weights that is negative or not finite, and while another plan has the memory that this one
  // shares; the error of an earlier step of the same queue may come to light here.
  void run(const StepInput& input);
  // Goes on where another plan of the same Params has got to: with its meters and status, and from here on with its
  // memory where they share it; the other one may then not run before it has taken over itself. Readings that were
  // requested there stay there. Synchronises; not between the micro-batches of an update.
  void take_over(Plan& other);
  // Waits, as run() would, until the next step may be handed over: the one before the last has ended.
  void wait_for_place();
  // For callers without a loader: host pictures f32 [rows, H, W, C] (normalised; finite: on the CPU a convolution's
  // ReLU makes 0 of NaN) and labels [rows], which may be null but in training; copied in before the step; synchronises.
  // Rows from `rows` on count for nothing; where batch norms would see them, in training, UsageError. So is a label
  // that is no class. `step` and `seed` are those of dropout, whose masks repeat where both do. The learning rate is
  // that of groups that end early too, for as long as one likes. For losses of labels without a teacher.
  void run(const float* images, const int32_t* labels, int rows, int64_t step = 0, float learning_rate = 0,
           uint64_t seed = 0);

  // The logits of the last step, f32 [batch, K], of rows that it was not given as they may be; synchronises. UsageError
  // before the first.
  std::vector<float> logits();
  // With PlanOptions::expose_logits: where each step leaves them, f32 [batch, K] in device memory, good until the next
  // step; the plan's own.
  const float* device_logits() const;
  // Softmax of them, computed on the host in double.
  std::vector<float> probabilities();
  // Starts an asynchronous read-back of meters and status, in queue order, labelled with `step`.
  void request_meters(int64_t step);
  // The next reading that has arrived, in the order of the requests; throws the error of a step before it. Waits only
  // with four outstanding.
  std::optional<MeterReading> poll_meters();
  MeterReading meters();  // synchronises
  // The sums to go on from; synchronises.
  void set_meters(const MeterValues& values);
  // Dynamic loss scaling (f16): the state to checkpoint; set between updates.
  StepStatus status();
  void set_status(const StepStatus& status);

  // Gradient of trainable parameter i after a step without optimizer, file layout, the loss scale (f16) divided out;
  // synchronises. UsageError for a parameter that gets none, and before the first step.
  std::vector<float> gradient(int i);

  // Runs the step again op by op and names the layer and op whose output is first not finite, or before that a row
  // whose label is no class of the network's; empty when there is neither.
  std::string find_non_finite(const StepInput& input);

  // What it was compiled for: height and width of the pictures, and outputs.
  const PlanOptions& options() const;
  // What each shape is computed by; as KernelOptions::recorded it makes another plan choose the same.
  const KernelChoices& kernels() const;
  int height() const;
  int width() const;
  int64_t classes() const;
  // Bytes of its own slab, 0 where it lies in another's; with Params::bytes(), Optimizer::bytes() and the loader's
  // slots this is all that is asked of the device allocator.
  int64_t slab_bytes() const;
  // The same, from the memory plan alone.
  int64_t predicted_bytes() const;
  int64_t kernels_per_step() const;
  int64_t flops_per_step() const;
  int64_t bytes_per_step() const;  // read and written by kernels
  // A table: ops, shapes, bytes, FLOPs, kernel chosen, memory over time, and where passes applied.
  std::string describe() const;
  // The same as one JSON object.
  std::string describe_json() const;

private:
  friend struct PlanAccess;  // tests/graph/plan_access.h: looks inside and plants faults
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A plan to be looked at and not run: it takes no memory, so it need not fit. Of the device of the Params; or of a CUDA
// device that need not be here, with the kernels that its libraries are known to offer, without their workspaces.
class PlanOutline {
public:
  // Throws as Plan does, but for want of memory only where a budget is given.
  PlanOutline(const Graph& graph, const Params& params, const PlanOptions& options);
  // Throws as Plan does, and UsageError for a device that is not described: h200, h100, a100.
  PlanOutline(const Graph& graph, const Params& params, const PlanOptions& options, std::string_view device);
  ~PlanOutline();
  PlanOutline(const PlanOutline&) = delete;
  PlanOutline& operator=(const PlanOutline&) = delete;
  // As Plan's, and of a described device with the least time that the kernels can take, one after the other, each
  // max(bytes / copy bandwidth, FLOPs / rate of matrix products).
  std::string describe() const;
  std::string describe_json() const;

private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Multiply-adds of the forward pass of one picture of the graph's size, in convolutions and linear layers; from shapes
// alone, without weights or device.
int64_t forward_multiply_adds(const Graph& graph);

}  // namespace convolt
