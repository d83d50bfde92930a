#include "graph/plan_impl.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string_view>
#include <utility>

#include "conv/autotune.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace convolt {

namespace {
std::unique_ptr<Autotuner> tuner_of(Context& context, const PlanOptions& o) {
  return std::make_unique<Autotuner>(context, context.conv(), o.kernels, o.training);
}

// With a budget that leaves room in the slab of another plan and no more.
PlanOptions within_lent_slab(const Params& params, PlanOptions o) {
  if (o.in_slab_of == nullptr || !o.memory_budget) return o;
  const int64_t others = params.bytes_with_copy(o.dtype) + (o.optimizer == nullptr ? 0 : o.optimizer->bytes());
  o.memory_budget = std::min(*o.memory_budget, others + o.in_slab_of->predicted_bytes());
  return o;
}
int64_t available_bytes(const Context& context, const PlanOptions& o) {
  const int64_t free = context.free_bytes();
  return o.in_slab_of == nullptr ? free : std::max(free, o.in_slab_of->predicted_bytes());
}
}  // namespace

Plan::Impl::Impl(const Graph& graph, Params& p, const PlanOptions& o)
    : CompiledPlan(graph, p, within_lent_slab(p, o), *tuner_of(p.context(), o), available_bytes(p.context(), o)),
      context(p.context()),
      params(p) {
  if (options.in_slab_of != nullptr && &options.in_slab_of->impl_->params != &params)
    throw UsageError("a plan lies in the slab of another of the same Params; they belong to two");
  allocate();
  bind_all();
  if (!lent) occupy();
}

Plan::Impl::~Impl() {
  try {
    context.compute().synchronize();  // queued work refers to this plan
  } catch (...) {
  }
#if defined(__SANITIZE_ADDRESS__)
  if (!context.device().is_cuda() && slab != nullptr)
    __asan_unpoison_memory_region(slab->data(), static_cast<size_t>(slab->bytes()));
#endif
}

void Plan::Impl::allocate() {
  const char* mode = std::getenv("CONVOLT_SLAB");
  if (mode != nullptr && std::string_view(mode) == "separate") {
    // One allocation for each group: tools that cannot see inside a slab then see every overrun.
    std::map<int, int64_t> bytes;
    for (size_t v = 0; v < program.values.size(); ++v)
      if (memory.places[v].group >= 0)
        bytes[memory.places[v].group] = std::max(bytes[memory.places[v].group], program.values[v].bytes());
    separate.resize(bytes.empty() ? 0 : static_cast<size_t>(bytes.rbegin()->first) + 1);
    for (const auto& [group, n] : bytes) separate[static_cast<size_t>(group)] = Buffer(context, n);
  } else {
    if (options.in_slab_of != nullptr) slab = options.in_slab_of->impl_->slab;
    lent = slab != nullptr && memory.bytes <= slab->bytes();
    if (lent)
      occupant = options.in_slab_of->impl_->occupant;
    else
      slab = std::make_shared<Buffer>(context, memory.bytes);
  }
  pinned_inputs = Buffer(context, kRing * sizeof(StepInput), Buffer::Kind::pinned);
  pinned_read_backs = Buffer(context, kRing * sizeof(ReadBack), Buffer::Kind::pinned);
}

Tensor Plan::Impl::tensor(ValueId id) const {
  if (id == kNoValue) return {};
  const ValueInfo& v = program[id];
  if (v.home == Home::param) return {v.dtype, v.shape, params.tensor(v.param).data};
  if (v.home == Home::copy) return {v.dtype, v.shape, params.copy(v.param, v.dtype).data};
  const MemoryPlan::Place& place = memory.places[static_cast<size_t>(id)];
  if (place.offset < 0) return {v.dtype, v.shape, nullptr};
  void* data = separate.empty() ? slab->as<char>() + place.offset : separate[static_cast<size_t>(place.group)].data();
  return {v.dtype, v.shape, data};
}

UpdateArgs Plan::Impl::update_args(const Op& op) const {
  UpdateArgs args;
  args.rule = std::get<OptimizerAttrs>(op.attrs).rule;
  args.tensors = tensor(device_tensors).as<OptimizerTensor>();
  args.tensor_count = static_cast<int64_t>(tables.tensors.size());
  args.tiles = tensor(device_tiles).as<OptimizerPiece>();
  args.tile_count = static_cast<int64_t>(tables.tiles.size());
  args.pieces = tensor(device_pieces).as<OptimizerPiece>();
  args.piece_count = static_cast<int64_t>(tables.pieces.size());
  args.gram_tiles = tensor(device_gram_tiles).as<MatrixTile>();
  args.gram_tile_count = static_cast<int64_t>(tables.matrices.grams.size());
  args.matrix_tiles = tensor(device_matrix_tiles).as<MatrixTile>();
  args.matrix_tile_count = static_cast<int64_t>(tables.matrices.matrices.size());
  args.matrices = tables.matrices.sizes;
  args.input = input;
  args.status = status;
  args.updates = options.optimizer->device_update_count();
  args.scratch = scratch(op);
  return args;
}

void Plan::Impl::bind_all() {
  input = tensor(program.step_input).as<const StepInput>();
  status = tensor(program.step_status).as<StepStatus>();
  meters = tensor(program.meters).as<Meters>();
  queue = &context.compute();
  for (const Op& op : program.prepare) prepare_launches.push_back(op.def->bind(op, *this));
  for (const Op& op : program.step) step_launches.push_back(op.def->bind(op, *this));
}

void Plan::Impl::occupy() {
#if defined(__SANITIZE_ADDRESS__)
  if (!context.device().is_cuda() && separate.empty()) {
    __asan_poison_memory_region(slab->data(), static_cast<size_t>(slab->bytes()));
    for (size_t v = 0; v < program.values.size(); ++v)
      if (memory.places[v].offset >= 0 && program.values[v].persistent)
        __asan_unpoison_memory_region(tensor(static_cast<ValueId>(v)).data,
                                      static_cast<size_t>(program.values[v].bytes()));
  }
#endif
  *occupant = this;
  upload_tables();
  prepared_version = 0;
}

// The pointers of one trained tensor.
void Plan::Impl::point(OptimizerTensor& t, int param, ValueId gradient_value) const {
  const Optimizer& optimizer = *options.optimizer;
  const Tensor gradient = tensor(gradient_value);
  t.weight = params.tensor(param).as<float>();
  for (size_t m = 0; m < optimizer.moments().size(); ++m) t.moments[m] = optimizer.moment(m, param).as<float>();
  t.gradient = gradient.data;
  t.gradient_dtype = gradient.dtype;
  if (program.gradient_sums != kNoValue)
    t.gradient_sum = tensor(program.gradient_sums).as<float>() + params.offset(param) / 4;
  if (program.copy_bytes(param) > 0) {
    t.copy = params.copy(param, options.dtype).data;
    t.copy_dtype = options.dtype;
  }
}

void Plan::Impl::upload_tables() {
  if (options.optimizer != nullptr) {
    const Op& update = program.step.back();
    const auto& attrs = std::get<OptimizerAttrs>(update.attrs);
    const Params* average = options.optimizer->average();
    for (size_t i = 0; i < tables.tensors.size(); ++i) {
      const bool trained = i < attrs.params.size();
      const int param = trained ? attrs.params[i] : attrs.averaged[i - attrs.params.size()];
      OptimizerTensor& t = tables.tensors[i];
      if (trained)
        point(t, param, update.in[i]);
      else
        t.weight = params.tensor(param).as<float>();
      if (average != nullptr) t.average = average->tensor(param).as<float>();
    }
    const auto upload = [&](ValueId to, const void* from) {
      if (to != kNoValue) context.compute().copy(tensor(to).data, from, tensor(to).bytes());
    };
    upload(device_tensors, tables.tensors.data());
    upload(device_tiles, tables.tiles.data());
    upload(device_pieces, tables.pieces.data());
    upload(device_gram_tiles, tables.matrices.grams.data());
    upload(device_matrix_tiles, tables.matrices.matrices.data());
  }
  for (const Constant& c : program.constants)
    context.compute().copy(tensor(c.value).data, c.data.data(), tensor(c.value).bytes());
  for (const ValueId v : program.zeroed)
    context.compute().run([t = tensor(v)](Stream s) { fill_zero(s, t.data, t.bytes()); });
  StepStatus fresh;
  if (options.training && options.dtype == DType::f16) fresh.loss_scale = 65536;
  const Meters zero;
  context.compute().copy(status, &fresh, sizeof fresh);
  context.compute().copy(meters, &zero, sizeof zero);
  context.compute().synchronize();
}

void Plan::Impl::run_prepare_if_needed() {
  if (prepared_version == params.version()) return;
  if (!prepare_launches.empty())
    context.compute().run([this](Stream s) {
      for (const Launch& launch : prepare_launches) launch(s);
    });
  prepared_version = params.version();
}

void Plan::Impl::open_memory([[maybe_unused]] size_t i) const {
#if defined(__SANITIZE_ADDRESS__)
  if (context.device().is_cuda() || !separate.empty()) return;
  const Op& op = program.step[i];
  const auto open = [&](ValueId v) {
    if (v == kNoValue || memory.places[static_cast<size_t>(v)].offset < 0) return;
    __asan_unpoison_memory_region(tensor(v).data, static_cast<size_t>(program[v].bytes()));
  };
  for (const ValueId v : op.out) open(v);
  open(op.scratch);
  // Libraries are not instrumented: look at the operands for them.
  for (const auto* operands : {&op.in, &op.out})
    for (const ValueId v : *operands)
      if (v != kNoValue && tensor(v).data != nullptr &&
          __asan_region_is_poisoned(tensor(v).data, static_cast<size_t>(program[v].bytes())) != nullptr)
        throw Error("memory plan: an operand '" + program[v].name + "' of this op is not alive");
#endif
}

void Plan::Impl::close_memory([[maybe_unused]] size_t i) const {
#if defined(__SANITIZE_ADDRESS__)
  if (context.device().is_cuda() || !separate.empty()) return;
  const Op& op = program.step[i];
  const auto close = [&](ValueId v) {
    if (v == kNoValue) return;
    const MemoryPlan::Place& place = memory.places[static_cast<size_t>(v)];
    if (place.offset < 0 || program[v].persistent || place.last > static_cast<int>(i)) return;
    // Its memory may have passed to an output of this op.
    for (const ValueId out : op.out)
      if (out != v && out != kNoValue && memory.places[static_cast<size_t>(out)].group == place.group &&
          memory.places[static_cast<size_t>(out)].last > static_cast<int>(i))
        return;
    __asan_poison_memory_region(tensor(v).data, static_cast<size_t>(program[v].bytes()));
  };
  for (const ValueId v : op.in) close(v);
  for (const ValueId v : op.out) close(v);
  close(op.scratch);
#endif
}

// Which op it was, and on what.
DeviceError Plan::Impl::failure(const Op& op, const std::exception& e) const {
  std::string shapes;
  for (const auto* operands : {&op.in, &op.out}) {
    shapes += shapes.empty() ? "" : " ->";
    for (const ValueId v : *operands)
      if (v != kNoValue && program[v].home == Home::slab) shapes += " " + program[v].shape.to_string();
  }
  const std::string kernel = op.kernel ? " by " + op.kernel->name() : "";
  return DeviceError(fmt::format("{} '{}'{} of{}: {}", op.def->name, op.layer, kernel, shapes, e.what()));
}

void Plan::Impl::execute(Stream s) {
  for (size_t i = 0; i < step_launches.size(); ++i) {
    const Op& op = program.step[i];
    try {
      open_memory(i);
      step_launches[i](s);
      close_memory(i);
    } catch (const std::exception& e) {
      throw failure(op, e);
    }
    if (context.synchronous() && s.cuda) {
      try {
        context.compute().synchronize();
      } catch (const std::exception& e) {
        throw failure(op, e);
      }
    }
  }
}

void Plan::Impl::wait_for_place() {
  if (steps < 2) return;
  // Taken out of the ring: an error of that step is thrown here once, not again by the next step.
  std::exchange(step_done[static_cast<size_t>((steps - 2) % kRing)], Event()).wait();
}

void Plan::Impl::count_micro_batch(StepInput& values) {
  if (options.accumulate == 1) return;
  values.micro_batch = micro_batch;
  values.micro_batches = options.accumulate;
  values.first_row += int64_t{micro_batch} * options.batch;
  micro_batch = (micro_batch + 1) % options.accumulate;
}

// The first step runs kernel by kernel: libraries load what they need then, which a graph may not hold. So does every
// step with a loss of the caller's, which runs on the host.
void Plan::Impl::launch_step() {
  const auto work = [this](Stream s) { execute(s); };
  const bool by_kernel = steps == 0 || !options.kernels.cuda_graph || context.synchronous();
  if (by_kernel || options.loss.custom) return context.compute().run(work);
  if (recorded_step == nullptr) recorded_step = context.compute().record_work(work);
  context.compute().launch(*recorded_step);
}

void Plan::Impl::check_input(const StepInput& values) const {
  const auto need = [](const void* pointer, const char* what) {
    if (pointer == nullptr) throw UsageError(std::string("a step's input has no ") + what + ": found a null pointer");
  };
  if (*occupant != this) throw UsageError("another plan has the memory that this one shares; call take_over() first");
  if (values.rows != 0 && values.rows != options.batch)
    throw UsageError(fmt::format("a plan of batch {} got a batch of {} rows", options.batch, values.rows));
  const auto amount = [](float value, const char* what) {
    if (!(value >= 0) || std::isinf(value))
      throw UsageError(fmt::format("a step's {} is {}: expected a number of at least 0", what, value));
  };
  amount(values.learning_rate, "learning rate");
  for (const float rate : values.own_rates) amount(rate, "own learning rate of a group");
  amount(values.weight_sum, "sum of weights");
  if (options.augment) {
    need(values.records, "records");
    need(values.pixels, "pixels");
  } else {
    need(values.images, "images");
  }
  need(values.weights, "weights");
  if (options.loss.target == LossOptions::Target::dense)
    need(values.targets, "targets, and this plan's loss is of dense ones");
  else
    need(values.labels, "labels");
  if (options.training && options.loss.distill_alpha > 0)
    need(values.teacher, "teacher's logits, which this plan's loss reads");
}

void Plan::Impl::submit(const StepInput& values) {
  check_input(values);
  wait_for_place();
  run_prepare_if_needed();
  StepInput* place = pinned_inputs.as<StepInput>() + steps % kRing;
  *place = values;
  count_micro_batch(*place);
  context.compute().copy(tensor(program.step_input).data, place, sizeof(StepInput));
  launch_step();
  step_done[static_cast<size_t>(steps % kRing)] = context.compute().record();
  ++steps;
  if (!options.training) return;
  params.touch();                       // running statistics, and weights where there is an optimizer
  prepared_version = params.version();  // the update refreshed what this plan reads
  ++params.batches_tracked;
  if (options.optimizer == nullptr || options.optimizer->average() == nullptr) return;
  options.optimizer->average()->touch();
  options.optimizer->average()->batches_tracked = params.batches_tracked;
}

std::string Plan::Impl::find_bad_label(const StepInput& values) {
  if (options.loss.target == LossOptions::Target::dense) return {};
  std::vector<int32_t> row_labels(static_cast<size_t>(options.batch));
  std::vector<float> row_weights(row_labels.size());
  read_back(row_labels.data(), values.labels, options.batch * int64_t{4});
  read_back(row_weights.data(), values.weights, options.batch * int64_t{4});
  return bad_label(row_labels, row_weights);
}

std::string Plan::Impl::bad_label(std::span<const int32_t> row_labels, std::span<const float> row_weights) const {
  if (options.loss.target == LossOptions::Target::dense) return {};
  const int64_t classes = program[program.logits].shape[1];
  for (size_t n = 0; n < row_labels.size(); ++n) {
    const int32_t label = row_labels[n];
    if ((!row_weights.empty() && !(row_weights[n] > 0)) || options.loss.ignore_index == label ||
        (label >= 0 && label < classes))
      continue;
    return "row " + std::to_string(n) + ", whose label is " + std::to_string(label) + " (the network has " +
           std::to_string(classes) + " classes)";
  }
  return {};
}

}  // namespace convolt
