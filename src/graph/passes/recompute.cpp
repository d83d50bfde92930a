#include "graph/passes/recompute.h"

#include <algorithm>
#include <optional>

#include "graph/cost.h"
#include "graph/op.h"

namespace convolt {
namespace {

// The forward ops end with the loss.
size_t forward_ops(const Program& p) {
  size_t n = p.step.size();
  while (n > 0 && p.step[n - 1].def != &ops::loss) --n;
  return n;
}

class Recomputer {
public:
  Recomputer(const Program& p, const MemoryPlan& memory, const RecomputeOptions& o)
      : p_(p), o_(o), forward_(forward_ops(p)), maker_(p.values.size(), -1), last_forward_(p.values.size(), -1) {
    for (size_t i = 0; i < forward_; ++i) {
      for (const ValueId v : p.step[i].in) note_use(v, i);
      for (const ValueId v : p.step[i].out) {
        note_use(v, i);
        if (v != kNoValue) maker_[static_cast<size_t>(v)] = static_cast<int>(i);
      }
    }
    again_.assign(forward_, false);
    useless_.assign(forward_, false);
    for (size_t i = 0; i < forward_; ++i) {
      useless_[i] = !may_run_again(p.step[i]);
      seconds_.push_back(useless_[i] ? 0 : time_bound(cost_of(p.step[i], p), o.rates, o.dtype, o.tf32));
    }
    best_ = {p, memory, 0, 0};
  }

  Recomputed run() {
    while (best_.memory.bytes > o_.limit) {
      const std::optional<size_t> next = cheapest();
      if (!next) break;
      again_[*next] = true;
      Recomputed more = with_these();
      const auto fullest = [](const MemoryPlan& m) {
        return *std::max_element(m.live_bytes.begin(), m.live_bytes.end());
      };
      if (fullest(more.memory) > fullest(best_.memory)) {
        again_[*next] = false;
        useless_[*next] = true;
      } else {
        best_ = std::move(more);
      }
    }
    if (best_.memory.bytes <= o_.limit) drop_needless();
    return std::move(best_);
  }

private:
  void note_use(ValueId v, size_t i) {
    if (v != kNoValue) last_forward_[static_cast<size_t>(v)] = static_cast<int>(i);
  }
  // Only what makes values of the slab, of nothing but values.
  bool may_run_again(const Op& op) const {
    return !op.def->effects && !op.in.empty() && std::all_of(op.out.begin(), op.out.end(), [&](ValueId v) {
      return v == kNoValue || (p_[v].home == Home::slab && !p_[v].persistent);
    });
  }

  // The op that makes values which are only kept where the slab is fullest, with the least time for each byte.
  std::optional<size_t> cheapest() const {
    const auto& live = best_.memory.live_bytes;
    const int fullest = static_cast<int>(std::max_element(live.begin(), live.end()) - live.begin());
    std::vector<int> first_backward(p_.values.size(), static_cast<int>(best_.program.step.size()));
    for (size_t i = best_.program.step.size(); i-- > forward_;)
      for (const ValueId v : best_.program.step[i].in)
        if (v != kNoValue && static_cast<size_t>(v) < p_.values.size())
          first_backward[static_cast<size_t>(v)] = static_cast<int>(i);
    const auto held = [&](ValueId v) {  // throughout `fullest`, though nobody reads it just then
      const auto at = static_cast<size_t>(v);
      return v != kNoValue && last_forward_[at] < fullest && fullest < first_backward[at] &&
             best_.memory.places[at].last >= fullest;
    };
    std::optional<size_t> found;
    double least = 0;
    for (size_t i = 0; i < forward_; ++i) {
      if (again_[i] || useless_[i]) continue;
      int64_t freed = 0;
      for (const ValueId v : p_.step[i].out) freed += held(v) ? p_[v].bytes() : 0;
      if (freed > 0) freed -= kept_for(i, fullest);
      if (freed <= 0) continue;
      if (const double price = seconds_[i] / static_cast<double>(freed); !found || price < least) {
        found = i;
        least = price;
      }
    }
    return found;
  }

  // Bytes that would have to be kept at `at` for op i to run again after it.
  int64_t kept_for(size_t i, int at) const {
    int64_t bytes = 0;
    for (const ValueId v : p_.step[i].in) {
      if (v == kNoValue || p_[v].home != Home::slab) continue;
      const int maker = maker_[static_cast<size_t>(v)];
      const bool made_again = maker >= 0 && again_[static_cast<size_t>(maker)];
      if (!made_again && best_.memory.places[static_cast<size_t>(v)].last < at) bytes += p_[v].bytes();
    }
    return bytes;
  }

  // The program in which what again_ names runs again, each as late as can be.
  Recomputed with_these() const {
    Recomputed r{p_, {}, 0, 0};
    r.program.step.assign(p_.step.begin(), p_.step.begin() + static_cast<int64_t>(forward_));
    std::vector<ValueId> now(p_.values.size(), kNoValue);  // the second of a value
    for (size_t i = forward_; i < p_.step.size(); ++i) {
      Op op = p_.step[i];
      for (ValueId& v : op.in) v = at_hand(r, now, v);
      r.program.step.push_back(std::move(op));
    }
    r.memory = plan_memory(r.program, o_.in_place);
    return r;
  }
  ValueId at_hand(Recomputed& r, std::vector<ValueId>& now, ValueId v) const {
    if (v == kNoValue) return v;
    const int maker = maker_[static_cast<size_t>(v)];
    if (maker < 0 || !again_[static_cast<size_t>(maker)]) return v;
    if (now[static_cast<size_t>(v)] == kNoValue) {
      Op op = p_.step[static_cast<size_t>(maker)];
      const auto another = [&](ValueId old) {
        if (old == kNoValue) return old;
        ValueInfo info = p_[old];
        info.name += " again";
        return r.program.add(std::move(info));
      };
      for (ValueId& in : op.in) in = at_hand(r, now, in);
      for (ValueId& out : op.out)
        if (out != kNoValue) out = now[static_cast<size_t>(out)] = another(out);
      op.scratch = another(op.scratch);
      op.note += op.note.empty() ? "again" : ", again";
      r.program.step.push_back(std::move(op));
      ++r.ops;
      r.seconds += seconds_[static_cast<size_t>(maker)];
    }
    return now[static_cast<size_t>(v)];
  }

  void drop_needless() {
    std::vector<size_t> order;
    for (size_t i = 0; i < forward_; ++i)
      if (again_[i]) order.push_back(i);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return seconds_[a] > seconds_[b]; });
    for (const size_t i : order) {
      again_[i] = false;
      Recomputed fewer = with_these();
      if (fewer.memory.bytes > o_.limit)
        again_[i] = true;
      else
        best_ = std::move(fewer);
    }
  }

  const Program& p_;
  const RecomputeOptions& o_;
  const size_t forward_;
  std::vector<int> maker_, last_forward_;  // by value: the forward op that makes it, and the last that touches it
  std::vector<bool> again_, useless_;      // by forward op
  std::vector<double> seconds_;
  Recomputed best_;
};

}  // namespace

Recomputed recompute(const Program& program, const MemoryPlan& memory, const RecomputeOptions& options) {
  return Recomputer(program, memory, options).run();
}

}  // namespace convolt
