#include "convolt/plan.h"

#include <cmath>
#include <cstring>

#include "conv/widen.h"
#include "graph/plan_impl.h"

namespace convolt {

Plan::Plan(const Graph& graph, Params& params, const PlanOptions& options)
    : impl_(std::make_unique<Impl>(graph, params, options)) {}
Plan::~Plan() = default;
Plan::Plan(Plan&&) noexcept = default;
Plan& Plan::operator=(Plan&&) noexcept = default;

void Plan::run(const StepInput& input) { impl_->submit(input); }

void Plan::wait_for_place() { impl_->wait_for_place(); }

void Plan::take_over(Plan& other) {
  if (&other.impl_->params != &impl_->params)
    throw UsageError("a plan takes over from another of the same Params; they belong to two");
  const MeterReading reading = other.meters();
  const StepStatus state = other.status();
  impl_->occupy();
  set_meters(reading.values);
  set_status(state);
}

void Plan::run(const float* images, const int32_t* labels, int rows, int64_t step, float learning_rate, uint64_t seed) {
  Impl& p = *impl_;
  if (p.images == kNoValue)
    throw UsageError("this plan begins with augmentation: give it a StepInput with records, or compile it without");
  const LossOptions& loss = p.options.loss;
  if (labels != nullptr &&
      (loss.target == LossOptions::Target::dense || (p.options.training && loss.distill_alpha > 0)))
    throw UsageError("this plan's loss reads dense targets or a teacher's logits: give it a StepInput with them");
  if (rows < 0 || rows > p.options.batch)
    throw UsageError("a plan of batch " + std::to_string(p.options.batch) + " got " + std::to_string(rows) + " rows");
  if (rows > 0 && images == nullptr) throw UsageError("a step needs pictures, found a null pointer");
  if (p.options.training && labels == nullptr) throw UsageError("a training step needs labels, found a null pointer");
  if (p.batch_statistics && rows < p.options.batch)
    throw UsageError("a training plan of batch " + std::to_string(p.options.batch) + " got " + std::to_string(rows) +
                     " rows: its batch norms would take the rest for pictures; compile a plan of that batch, or leave "
                     "such rows out");
  if (labels != nullptr)
    if (const std::string bad = p.bad_label({labels, static_cast<size_t>(rows)}, {}); !bad.empty())
      throw UsageError("a step got " + bad);
  p.wait_for_place();  // before anything is queued that refers to the caller's memory
  const Tensor staged = p.tensor(p.images), staged_labels = p.tensor(p.labels), staged_weights = p.tensor(p.weights);
  const int64_t row_bytes = staged.bytes() / p.options.batch;
  std::vector<float> weights(static_cast<size_t>(p.options.batch), 0.F);
  for (int i = 0; i < rows && labels != nullptr; ++i) weights[static_cast<size_t>(i)] = 1;
  StepInput input;
  input.step = step;
  input.seed = seed;
  input.learning_rate = learning_rate;
  std::ranges::fill(input.own_rates, learning_rate);
  input.weight_sum = labels != nullptr ? static_cast<float>(rows) : 0.F;
  input.images = staged.as<float>();
  input.labels = staged_labels.as<int32_t>();
  input.weights = staged_weights.as<float>();
  p.check_input(input);  // what is queued below refers to memory that an exception would free
  Queue& queue = p.context.compute();
  queue.copy(staged.data, images, rows * row_bytes);
  if (labels != nullptr) queue.copy(staged_labels.data, labels, rows * int64_t{4});
  queue.copy(staged_weights.data, weights.data(), staged_weights.bytes());
  p.submit(input);
  queue.synchronize();
}

std::vector<float> Plan::logits() {
  Impl& p = *impl_;
  if (p.steps == 0) throw UsageError("this plan has run no step yet, so it has no logits");
  const Tensor t = p.tensor(p.program.logits);
  std::vector<char> raw(static_cast<size_t>(t.bytes()));
  p.read_back(raw.data(), t.data, t.bytes());
  std::vector<float> values(static_cast<size_t>(t.elements()));
  widen(raw.data(), t.dtype, values.data(), t.elements());
  return values;
}

const float* Plan::device_logits() const {
  if (impl_->program.exposed_logits == kNoValue)
    throw UsageError("this plan keeps no f32 logits on the device: compile it with PlanOptions::expose_logits");
  return impl_->tensor(impl_->program.exposed_logits).as<const float>();
}

std::vector<float> Plan::probabilities() {
  std::vector<float> values = logits();
  const size_t k = static_cast<size_t>(classes());
  for (size_t row = 0; row < values.size(); row += k) {
    double top = -INFINITY, sum = 0;
    for (size_t i = 0; i < k; ++i) top = std::max(top, static_cast<double>(values[row + i]));
    for (size_t i = 0; i < k; ++i) sum += std::exp(static_cast<double>(values[row + i]) - top);
    for (size_t i = 0; i < k; ++i)
      values[row + i] = static_cast<float>(std::exp(static_cast<double>(values[row + i]) - top) / sum);
  }
  return values;
}

namespace {
MeterReading reading_of(int64_t step, const Meters& m, const StepStatus& s) {
  return {step,
          {m.loss, m.weight, m.top1, m.top5},
          s.first_bad_step,
          s.gradient_norm,
          s.last_bad_step,
          s.bad_steps,
          s.bad_in_a_row,
          s.rate_factor,
          s.loss_scale,
          s.skipped_steps};
}
}  // namespace

void Plan::request_meters(int64_t step) {
  Impl& p = *impl_;
  const size_t slot = static_cast<size_t>(p.read_backs % static_cast<int64_t>(Impl::kRing));
  if (p.read_backs - p.readings_taken == static_cast<int64_t>(Impl::kRing))
    throw UsageError("poll_meters() was not called between four requests");
  auto* place = p.pinned_read_backs.as<Impl::ReadBack>() + slot;
  p.context.compute().copy(&place->meters, p.meters, sizeof(Meters));
  p.context.compute().copy(&place->status, p.status, sizeof(StepStatus));
  p.read_back_done[slot] = p.context.compute().record();
  p.read_back_step[slot] = step;
  ++p.read_backs;
}

std::optional<MeterReading> Plan::poll_meters() {
  Impl& p = *impl_;
  if (p.readings_taken == p.read_backs) return std::nullopt;
  const size_t slot = static_cast<size_t>(p.readings_taken % static_cast<int64_t>(Impl::kRing));
  if (!p.read_back_done[slot].reached() && p.read_backs - p.readings_taken < static_cast<int64_t>(Impl::kRing))
    return std::nullopt;
  ++p.readings_taken;
  // With all places taken the oldest is at least three requests old: waiting for it costs nothing that a full queue
  // would not. Where a step before it failed, nothing was copied: this throws the error.
  p.read_back_done[slot].wait();
  const auto& r = p.pinned_read_backs.as<Impl::ReadBack>()[slot];
  return reading_of(p.read_back_step[slot], r.meters, r.status);
}

MeterReading Plan::meters() {
  Meters m;
  impl_->read_back(&m, impl_->meters, sizeof m);
  return reading_of(-1, m, status());
}

StepStatus Plan::status() {
  StepStatus s;
  impl_->read_back(&s, impl_->status, sizeof s);
  return s;
}

void Plan::set_status(const StepStatus& status) {
  impl_->context.compute().copy(impl_->status, &status, sizeof status);
  impl_->context.compute().synchronize();
}

void Plan::set_meters(const MeterValues& values) {
  const Meters m{values.loss, values.weight, values.top1, values.top5};
  impl_->context.compute().copy(impl_->meters, &m, sizeof m);
  impl_->context.compute().synchronize();
}

std::vector<float> Plan::gradient(int i) {
  Impl& p = *impl_;
  const std::string& name = p.params.spec(i).name;
  const ValueId id = p.program.gradients[static_cast<size_t>(i)];
  if (id == kNoValue) throw UsageError("parameter '" + name + "' has no gradient in this plan");
  if (p.steps == 0) throw UsageError("this plan has run no step yet, so '" + name + "' has no gradient");
  const Tensor t = p.tensor(id);
  std::vector<char> raw(static_cast<size_t>(t.bytes()));
  p.read_back(raw.data(), t.data, t.bytes());
  std::vector<float> memory(static_cast<size_t>(t.elements()));
  widen(raw.data(), t.dtype, memory.data(), t.elements());
  for (const float scale = status().loss_scale; float& g : memory) g /= scale;
  return p.params.to_file_layout(i, memory);
}

std::string Plan::find_non_finite(const StepInput& input) {
  Impl& p = *impl_;
  p.check_input(input);
  if (std::string label = p.find_bad_label(input); !label.empty()) return label;
  p.run_prepare_if_needed();
  p.context.compute().copy(p.tensor(p.program.step_input).data, &input, sizeof input);
  std::string found;
  for (size_t i = 0; i < p.step_launches.size() && found.empty(); ++i) {
    const Op& op = p.program.step[i];
    if (std::holds_alternative<OptimizerAttrs>(op.attrs)) break;
    p.context.compute().run([&](Stream s) {
      p.open_memory(i);
      p.step_launches[i](s);
    });
    p.context.compute().synchronize();
    for (const ValueId v : op.out) {
      const Tensor t = p.tensor(v);
      if (t.data == nullptr || t.dtype == DType::u8 || t.dtype == DType::i32) continue;
      std::vector<char> raw(static_cast<size_t>(t.bytes()));
      p.read_back(raw.data(), t.data, t.bytes());
      std::vector<float> values(static_cast<size_t>(t.elements()));
      widen(raw.data(), t.dtype, values.data(), t.elements());
      for (const float x : values)
        if (!std::isfinite(x)) {
          found = "layer '" + op.layer + "' (" + std::string(op.def->name) + ")";
          break;
        }
      if (!found.empty()) break;
    }
    p.close_memory(i);
  }
  return found;
}

const PlanOptions& Plan::options() const { return impl_->options; }
const KernelChoices& Plan::kernels() const { return impl_->kernels; }
int Plan::height() const { return impl_->height; }
int Plan::width() const { return impl_->width; }
int64_t Plan::classes() const { return impl_->program[impl_->program.logits].shape[1]; }
int64_t Plan::slab_bytes() const {
  int64_t n = impl_->slab == nullptr || impl_->lent ? 0 : impl_->slab->bytes();
  for (const Buffer& b : impl_->separate) n += b.bytes();
  return n;
}
int64_t Plan::predicted_bytes() const { return impl_->memory.bytes; }

}  // namespace convolt
