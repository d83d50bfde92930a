#include "bench/conv_rows.h"

#include <fmt/format.h>

#include <algorithm>

#include "bench/memory.h"
#include "graph/lower.h"

namespace convolt::bench {
namespace {

bool same(const ConvDesc& a, const ConvDesc& b) { return a.pass == b.pass && a.geometry == b.geometry; }
bool same(const LinearDesc& a, const LinearDesc& b) {
  return a.pass == b.pass && a.rows == b.rows && a.in == b.in && a.out == b.out;
}

// Adds one layer's pass to the cases, or to the count of the case that it equals.
template <class Desc>
void add(std::vector<ConvCase>& cases, const std::string& layer, const Desc& desc) {
  const auto known = std::find_if(cases.begin(), cases.end(), [&](const ConvCase& c) {
    const Desc* other = std::get_if<Desc>(&c.desc);
    return other != nullptr && same(*other, desc);
  });
  if (known != cases.end())
    ++known->count;
  else
    cases.push_back({layer, 1, desc});
}

// A candidate with memory to run in.
class Candidate {
public:
  Candidate(Stopwatch& stopwatch, std::unique_ptr<ConvKernel> kernel, const ConvArgs& args, bool wgrad)
      : stopwatch_(stopwatch),
        kernel_(std::move(kernel)),
        packed_(stopwatch.context(), kernel_->packed_bytes()),
        workspace_(stopwatch.context(), kernel_->workspace_bytes()),
        args_(args),
        plain_(args.w),
        wgrad_(wgrad) {
    args_.workspace = workspace_.data();
    if (packs()) args_.w = packed_.data();
  }
  double time() {
    const auto work = [this](Stream s) {
      if (packs() && !wgrad_) kernel_->pack(s, plain_, packed_.data());
      kernel_->run(s, args_);
      if (packs() && wgrad_) kernel_->unpack(s, packed_.data(), plain_);
    };
    return stopwatch_.time(work, work);  // once before: what a launch costs the host is no time of the device
  }
  std::string name() const { return kernel_->name(); }

private:
  bool packs() const { return packed_.bytes() > 0; }
  Stopwatch& stopwatch_;
  std::unique_ptr<ConvKernel> kernel_;
  Buffer packed_, workspace_;
  ConvArgs args_;
  void* plain_;
  bool wgrad_;
};

// Names that no two timings of a row share.
std::string distinct(const std::string& name, const std::vector<Timing>& others) {
  std::string free = name;
  for (int i = 2; std::any_of(others.begin(), others.end(), [&](const Timing& t) { return t.name == free; }); ++i)
    free = fmt::format("{} #{}", name, i);
  return free;
}

}  // namespace

const char* name_of(ConvPass pass) {
  return pass == ConvPass::fprop ? "fprop" : pass == ConvPass::dgrad ? "dgrad" : "wgrad";
}

ConvPass ConvCase::pass() const {
  return std::visit([](const auto& d) { return d.pass; }, desc);
}
std::string ConvCase::shape() const {
  if (const auto* conv = std::get_if<ConvDesc>(&desc)) return conv->geometry.to_string();
  const auto& l = std::get<LinearDesc>(desc);
  return fmt::format("n{} {} -> {}", l.rows, l.in, l.out);
}
int64_t ConvCase::flops() const {
  if (const auto* conv = std::get_if<ConvDesc>(&desc)) return conv->geometry.flops();
  const auto& l = std::get<LinearDesc>(desc);
  return 2 * l.rows * l.in * l.out;
}
int64_t ConvCase::x() const {
  if (const auto* conv = std::get_if<ConvDesc>(&desc)) return conv->geometry.x_shape().elements();
  return std::get<LinearDesc>(desc).rows * std::get<LinearDesc>(desc).in;
}
int64_t ConvCase::w() const {
  if (const auto* conv = std::get_if<ConvDesc>(&desc)) return conv->geometry.w_shape().elements();
  return std::get<LinearDesc>(desc).in * std::get<LinearDesc>(desc).out;
}
int64_t ConvCase::y() const {
  if (const auto* conv = std::get_if<ConvDesc>(&desc)) return conv->geometry.y_shape().elements();
  return std::get<LinearDesc>(desc).rows * std::get<LinearDesc>(desc).out;
}

std::vector<ConvCase> conv_cases(const Graph& graph, const PlanOptions& options) {
  Program program = lower(graph, options);
  lower_training(program, options);
  std::vector<ConvCase> cases;
  for (const Op& op : program.step) {
    if (const auto* conv = std::get_if<ConvAttrs>(&op.attrs)) add(cases, op.layer, conv->desc);
    if (const auto* linear = std::get_if<LinearAttrs>(&op.attrs)) add(cases, op.layer, linear->desc);
  }
  // The backward ops come in the opposite order: each after the first case of its shape.
  std::vector<std::string> shapes;
  for (const ConvCase& c : cases) shapes.push_back(c.shape());
  const auto place = [&](const ConvCase& c) { return std::find(shapes.begin(), shapes.end(), c.shape()); };
  std::stable_sort(cases.begin(), cases.end(), [&](const ConvCase& a, const ConvCase& b) {
    return std::pair(place(a), a.pass()) < std::pair(place(b), b.pass());
  });
  for (size_t i = 1; i < cases.size(); ++i)  // the layer that the passes of a shape are named by
    if (cases[i].shape() == cases[i - 1].shape()) cases[i].layer = cases[i - 1].layer;
  return cases;
}

Row time_candidates(Stopwatch& stopwatch, const ConvCase& c, const Limit& copy, const Limit& matmul,
                    const Sampling& sampling) {
  Context& context = stopwatch.context();
  const DType dtype = std::visit([](const auto& d) { return d.dtype; }, c.desc);
  const Buffer x = filled(context, dtype, c.x()), w = filled(context, dtype, c.w()), y = filled(context, dtype, c.y());
  const ConvArgs args{x.data(), w.data(), y.data(), nullptr, nullptr};
  std::vector<std::unique_ptr<Candidate>> candidates;
  std::vector<std::function<double()>> takes;
  for (auto& kernel : std::visit([&](const auto& d) { return context.conv().candidates(d); }, c.desc)) {
    candidates.push_back(std::make_unique<Candidate>(stopwatch, std::move(kernel), args, c.pass() == ConvPass::wgrad));
    takes.push_back([candidate = candidates.back().get()] { return candidate->time(); });
  }
  const auto times = in_turn(sampling, takes);
  const bool tf32 = dtype == DType::f32 && std::visit([](const auto& d) { return d.tf32; }, c.desc);
  Row row{.name = fmt::format("{} {}", c.layer, name_of(c.pass())),
          .dtype = tf32 ? "tf32" : std::string(convolt::name_of(dtype)),
          .shape = c.shape(),
          .bytes = (c.x() + c.w() + c.y()) * size_of(dtype),
          .flops = c.flops(),
          .count = c.count};
  const double limit_ms =
      1e3 * std::max(static_cast<double>(row.bytes) / copy.best, static_cast<double>(row.flops) / matmul.best);
  // Plans take the first, but on CUDA the quickest, which they find by timing.
  size_t chosen = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const Summary ms = summary_of(times[i]);
    row.timings.push_back({distinct(candidates[i]->name(), row.timings), ms, limit_ms / ms.min, false});
    if (context.device().is_cuda() && ms.median < row.timings[chosen].ms.median) chosen = i;
  }
  if (!row.timings.empty()) row.timings[chosen].chosen = true;
  return row;
}

}  // namespace convolt::bench
