// What a plan says about itself: the op list with shapes, costs, kernels and memory over time.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "conv/autotune.h"
#include "conv/described_device.h"
#include "graph/cost.h"
#include "graph/plan_impl.h"
#include "graph/readable.h"

namespace convolt {

std::string readable(double value, const char* unit) {
  const char* prefixes[] = {"", "K", "M", "G", "T"};
  int i = 0;
  for (; value >= 1000 && i < 4; ++i) value /= 1000;
  return i == 0 ? fmt::format("{:.0f} {}", value, unit) : fmt::format("{:.1f} {}{}", value, prefixes[i], unit);
}

namespace {

std::string kernel_name(const Op& op) {
  if (!op.kernel) return op.note.substr(std::min(op.note.size(), op.note.find_first_not_of(' ')));
  return op.kernel->name() + (op.kernel->widened() ? " (computes in f32)" : "") +
         (op.note.empty() || op.note.front() == ' ' ? "" : " ") + op.note;
}

std::string shape_of_output(const Op& op, const Program& p) {
  return op.out.empty() || op.out[0] == kNoValue ? "" : p[op.out[0]].shape.to_string();
}

std::vector<std::string> passes_of(const CompiledPlan& p) {
  std::vector<std::string> lines = p.program.pass_log;
  if (p.memory.in_place > 0)
    lines.push_back(fmt::format("in_place: {} outputs in the memory of an input", p.memory.in_place));
  return lines;
}

std::string ops_table(const CompiledPlan& p) {
  std::string out = fmt::format("\n{:<4} {:<27} {:<28} {:<22} {:>9} {:>10} {:>9}  {}\n", "#", "op", "layer", "output",
                                "bytes", "FLOP", "live", "kernel");
  for (size_t i = 0; i < p.program.step.size(); ++i) {
    const Op& op = p.program.step[i];
    const OpCost cost = cost_of(op, p.program);
    out += fmt::format("{:<4} {:<27} {:<28} {:<22} {:>9} {:>10} {:>9}  {}\n", i, op.def->name, op.layer,
                       shape_of_output(op, p.program), readable(static_cast<double>(cost.bytes), "B"),
                       cost.flops > 0 ? readable(static_cast<double>(cost.flops), "FLOP") : "",
                       readable(static_cast<double>(p.memory.live_bytes[i]), "B"), kernel_name(op));
  }
  return out;
}

std::string text_of(const CompiledPlan& p, const DeviceRates* rates) {
  std::string out = fmt::format("plan: {}, batch {}, {}x{}, {}{}, {}\n", p.options.training ? "training" : "evaluation",
                                p.options.batch, p.height, p.width, name_of(p.options.dtype),
                                p.options.tf32 ? " (tf32)" : "", p.provider);
  for (const std::string& line : passes_of(p)) out += "  pass " + line + "\n";
  out += ops_table(p);
  const PlanCost cost = cost_of(p, rates);
  out += fmt::format("\nper step: {} kernels, {}, {} moved; slab {}; prepare: {} ops\n", cost.total.launches,
                     readable(static_cast<double>(cost.total.flops), "FLOP"),
                     readable(static_cast<double>(cost.total.bytes), "B"),
                     readable(static_cast<double>(p.memory.bytes), "B"), p.program.prepare.size());
  out += fmt::format(
      "memory: parameters {}, optimizer {}, slab {}\n", readable(static_cast<double>(p.parameter_bytes), "B"),
      readable(static_cast<double>(p.optimizer_bytes), "B"), readable(static_cast<double>(p.memory.bytes), "B"));
  if (p.options.training)
    out += fmt::format("saved for the backward ops: {}\n",
                       readable(static_cast<double>(cost.saved_for_backward_bytes), "B"));
  if (rates != nullptr)
    out += fmt::format("time bound: {} ms, {:.0f} pictures a second\n",
                       cost.time_bound < 1e-3 ? fmt::format("{:.3g}", cost.time_bound * 1e3)
                                              : fmt::format("{:.2f}", cost.time_bound * 1e3),
                       p.options.batch / cost.time_bound);
  return out;
}

nlohmann::ordered_json json_of(const Op& op, int64_t live_bytes, const CompiledPlan& p, const DeviceRates* rates) {
  const OpCost cost = cost_of(op, p.program);
  nlohmann::ordered_json o{{"op", op.def->name},       {"layer", op.layer},         {"bytes", cost.bytes},
                           {"flops", cost.flops},      {"launches", cost.launches}, {"live_bytes", live_bytes},
                           {"kernel", kernel_name(op)}};
  if (rates != nullptr) o["time_bound_us"] = time_bound(cost, *rates, p.options.dtype, p.options.tf32) * 1e6;
  for (const ValueId v : op.out)
    if (v != kNoValue) {
      std::vector<int64_t> shape;
      for (int k = 0; k < p.program[v].shape.rank(); ++k) shape.push_back(p.program[v].shape[k]);
      o["outputs"].push_back({{"dtype", name_of(p.program[v].dtype)}, {"shape", shape}});
    }
  return o;
}

std::string json_of(const CompiledPlan& p, const DeviceRates* rates) {
  const PlanCost cost = cost_of(p, rates);
  nlohmann::ordered_json json{{"training", p.options.training},
                              {"batch", p.options.batch},
                              {"height", p.height},
                              {"width", p.width},
                              {"dtype", name_of(p.options.dtype)},
                              {"tf32", p.options.tf32},
                              {"provider", p.provider},
                              {"kernels_per_step", cost.total.launches},
                              {"prepare_ops", p.program.prepare.size()},
                              {"flops_per_step", cost.total.flops},
                              {"bytes_per_step", cost.total.bytes},
                              {"slab_bytes", p.memory.bytes},
                              {"parameter_bytes", p.parameter_bytes},
                              {"optimizer_bytes", p.optimizer_bytes},
                              {"peak_bytes", p.memory.bytes + p.parameter_bytes + p.optimizer_bytes},
                              {"saved_for_backward_bytes", cost.saved_for_backward_bytes}};
  if (rates != nullptr) json["time_bound_ms"] = cost.time_bound * 1e3;
  json["passes"] = passes_of(p);
  for (size_t i = 0; i < p.program.step.size(); ++i)
    json["ops"].push_back(json_of(p.program.step[i], p.memory.live_bytes[i], p, rates));
  return json.dump();
}

}  // namespace

int64_t Plan::kernels_per_step() const { return cost_of(*impl_, nullptr).total.launches; }
int64_t Plan::flops_per_step() const { return cost_of(*impl_, nullptr).total.flops; }
int64_t Plan::bytes_per_step() const { return cost_of(*impl_, nullptr).total.bytes; }

std::string Plan::describe() const { return text_of(*impl_, nullptr); }
std::string Plan::describe_json() const { return json_of(*impl_, nullptr); }

struct PlanOutline::Impl {
  std::optional<DescribedDevice> described;
  std::unique_ptr<ConvProvider> provider;  // of the described device
  KernelOptions kernels;
  Autotuner tuner;
  CompiledPlan plan;
  // Here nothing can be timed.
  Impl(const Graph& graph, const Params& params, const PlanOptions& options, std::string_view name)
      : described(described_device(name)),
        provider(make_described_provider(*described)),
        kernels{.autotune = Autotune::off,
                .workspace_limit = options.kernels.workspace_limit,
                .deterministic = options.kernels.deterministic},
        tuner(params.context(), *provider, kernels, options.training),
        plan(graph, params, options, tuner) {}
  Impl(const Graph& graph, const Params& params, const PlanOptions& options)
      : kernels(options.kernels),
        tuner(params.context(), params.context().conv(), kernels, options.training),
        plan(graph, params, options, tuner) {}
  const DeviceRates* rates() const { return described ? &described->rates : nullptr; }
};

PlanOutline::PlanOutline(const Graph& graph, const Params& params, const PlanOptions& options, std::string_view device)
    : impl_(std::make_unique<Impl>(graph, params, options, device)) {}
PlanOutline::PlanOutline(const Graph& graph, const Params& params, const PlanOptions& options)
    : impl_(std::make_unique<Impl>(graph, params, options)) {}
PlanOutline::~PlanOutline() = default;
std::string PlanOutline::describe() const { return text_of(impl_->plan, impl_->rates()); }
std::string PlanOutline::describe_json() const { return json_of(impl_->plan, impl_->rates()); }

int64_t forward_multiply_adds(const Graph& graph) {
  const Program program = lower(graph, {.batch = 1});
  int64_t n = 0;
  for (const Op& op : program.step) n += cost_of(op, program).flops;
  return n / 2;
}

}  // namespace convolt
