// What a plan says about itself: the op list with shapes, costs, kernels and memory over time.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "graph/lower.h"
#include "graph/plan_impl.h"

namespace convolt {
namespace {

int launches(const Op& op) { return op.def->launches != nullptr ? op.def->launches(op) : 1; }
int64_t flops(const Op& op, const Program& p) { return op.def->flops != nullptr ? op.def->flops(op, p) : 0; }

// Bytes that the optimizer's ops move besides the gradients.
int64_t optimizer_bytes(const Op& op, const Program& p) {
  int64_t elements = 0;
  for (const ValueId v : op.in) elements += p[v].shape.elements();
  if (op.def == &ops::accumulate_gradients) return 8 * elements;
  const auto& attrs = std::get<OptimizerAttrs>(op.attrs);
  int64_t per_element = 8 + 8 * static_cast<int64_t>(attrs.optimizer->moments().size());
  if (attrs.optimizer->average() != nullptr) per_element += 8;
  if (attrs.rule.clip_adaptive > 0 || attrs.rule.kind == OptimizerKind::lars) per_element += 4;
  return per_element * elements + muon_bytes(optimizer_tables(attrs).tensors, attrs.rule);
}

// Bytes that the op's kernels read and write: each operand once, the gradients twice where their norm is wanted.
int64_t bytes(const Op& op, const Program& p) {
  int64_t in = 0, out = 0;
  for (const ValueId v : op.in)
    if (v != kNoValue) in += p[v].bytes();
  for (const ValueId v : op.out)
    if (v != kNoValue) out += p[v].bytes();
  if (!std::holds_alternative<OptimizerAttrs>(op.attrs)) return in + out;
  const bool twice = op.def == &ops::optimizer_update && std::get<OptimizerAttrs>(op.attrs).rule.needs_norms();
  return (twice ? 2 : 1) * in + optimizer_bytes(op, p);
}

std::string readable(double value, const char* unit) {
  const char* prefixes[] = {"", "K", "M", "G", "T"};
  int i = 0;
  for (; value >= 1000 && i < 4; ++i) value /= 1000;
  return i == 0 ? fmt::format("{:.0f} {}", value, unit) : fmt::format("{:.1f} {}{}", value, prefixes[i], unit);
}

std::string kernel_name(const Op& op) {
  if (!op.kernel) return op.note;
  return op.kernel->name() + (op.kernel->widened() ? " (computes in f32)" : "") +
         (op.note.empty() ? "" : " " + op.note);
}

}  // namespace

int64_t Plan::kernels_per_step() const {
  int64_t n = 0;
  for (const Op& op : impl_->program.step) n += launches(op);
  return n;
}
int64_t Plan::flops_per_step() const {
  int64_t n = 0;
  for (const Op& op : impl_->program.step) n += flops(op, impl_->program);
  return n;
}
int64_t Plan::bytes_per_step() const {
  int64_t n = 0;
  for (const Op& op : impl_->program.step) n += bytes(op, impl_->program);
  return n;
}

std::string Plan::describe() const {
  const Impl& p = *impl_;
  std::string out = fmt::format("plan: {}, batch {}, {}x{}, {}{}, {}\n", p.options.training ? "training" : "evaluation",
                                p.options.batch, p.height, p.width, name_of(p.options.dtype),
                                p.options.tf32 ? " (tf32)" : "", p.context.conv().describe());
  for (const std::string& line : p.program.pass_log) out += "  pass " + line + "\n";
  if (p.memory.in_place > 0)
    out += fmt::format("  pass in-place: {} outputs in the memory of an input\n", p.memory.in_place);
  out += fmt::format("\n{:<4} {:<19} {:<28} {:<22} {:>9} {:>10} {:>9}  {}\n", "#", "op", "layer", "output", "bytes",
                     "FLOP", "live", "kernel");
  for (size_t i = 0; i < p.program.step.size(); ++i) {
    const Op& op = p.program.step[i];
    const std::string shape = op.out.empty() || op.out[0] == kNoValue ? "" : p.program[op.out[0]].shape.to_string();
    const int64_t f = flops(op, p.program);
    out += fmt::format("{:<4} {:<19} {:<28} {:<22} {:>9} {:>10} {:>9}  {}\n", i, op.def->name, op.layer, shape,
                       readable(static_cast<double>(bytes(op, p.program)), "B"),
                       f > 0 ? readable(static_cast<double>(f), "FLOP") : "",
                       readable(static_cast<double>(p.memory.live_bytes[i]), "B"), kernel_name(op));
  }
  out += fmt::format("\nper step: {} kernels, {}, {} moved; slab {}; prepare: {} ops\n", kernels_per_step(),
                     readable(static_cast<double>(flops_per_step()), "FLOP"),
                     readable(static_cast<double>(bytes_per_step()), "B"),
                     readable(static_cast<double>(p.memory.bytes), "B"), p.program.prepare.size());
  return out;
}

std::string Plan::describe_json() const {
  const Impl& p = *impl_;
  nlohmann::ordered_json json{{"training", p.options.training},
                              {"batch", p.options.batch},
                              {"height", p.height},
                              {"width", p.width},
                              {"dtype", name_of(p.options.dtype)},
                              {"provider", p.context.conv().describe()},
                              {"kernels_per_step", kernels_per_step()},
                              {"flops_per_step", flops_per_step()},
                              {"bytes_per_step", bytes_per_step()},
                              {"slab_bytes", predicted_bytes()},
                              {"passes", p.program.pass_log}};
  for (size_t i = 0; i < p.program.step.size(); ++i) {
    const Op& op = p.program.step[i];
    nlohmann::ordered_json o{{"op", op.def->name},
                             {"layer", op.layer},
                             {"bytes", bytes(op, p.program)},
                             {"flops", flops(op, p.program)},
                             {"launches", launches(op)},
                             {"live_bytes", p.memory.live_bytes[i]},
                             {"kernel", kernel_name(op)}};
    for (const ValueId v : op.out)
      if (v != kNoValue) {
        std::vector<int64_t> shape;
        for (int k = 0; k < p.program[v].shape.rank(); ++k) shape.push_back(p.program[v].shape[k]);
        o["outputs"].push_back({{"dtype", name_of(p.program[v].dtype)}, {"shape", shape}});
      }
    json["ops"].push_back(o);
  }
  return json.dump();
}

int64_t forward_multiply_adds(const Graph& graph) {
  const Program program = lower(graph, {.batch = 1});
  int64_t n = 0;
  for (const Op& op : program.step) n += flops(op, program);
  return n / 2;
}

}  // namespace convolt
