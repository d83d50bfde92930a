#include "graph/memory_plan.h"

#include <algorithm>
#include <numeric>

#include "convolt/error.h"
#include "graph/op.h"

namespace convolt {
namespace {

int64_t padded(int64_t bytes) {
  return (bytes + MemoryPlan::kRedZone + MemoryPlan::kAlign - 1) / MemoryPlan::kAlign * MemoryPlan::kAlign;
}

struct Group {
  int64_t bytes = 0;
  int first = 0, last = -1;
  bool persistent = false;
  int order = 0;  // of persistent groups: gradients by parameter, then the rest
  int64_t offset = 0;
  std::vector<ValueId> members;
};

class Planner {
public:
  Planner(const Program& p, bool in_place) : p_(p), in_place_(in_place) { plan_.places.resize(p.values.size()); }

  MemoryPlan run() {
    find_lifetimes();
    make_groups();
    place();
    for (const Group& g : groups_)
      for (const ValueId v : g.members) {
        plan_.places[static_cast<size_t>(v)].offset = g.offset;
        plan_.bytes = std::max(plan_.bytes, g.offset + padded(g.bytes));
      }
    count_live();
    return std::move(plan_);
  }

private:
  MemoryPlan::Place& at(ValueId v) { return plan_.places[static_cast<size_t>(v)]; }
  bool planned(ValueId v) const { return v != kNoValue && p_[v].home == Home::slab; }

  void touch(ValueId v, int i) {
    if (!planned(v)) return;
    if (at(v).last < 0) at(v).first = i;
    at(v).last = std::max(at(v).last, i);
  }
  void find_lifetimes() {
    const int n = static_cast<int>(p_.step.size());
    for (int i = 0; i < n; ++i) {
      const Op& op = p_.step[static_cast<size_t>(i)];
      for (const ValueId v : op.in) touch(v, i);
      for (const ValueId v : op.out) touch(v, i);
      touch(op.scratch, i);
    }
    for (size_t v = 0; v < p_.values.size(); ++v)
      if (p_.values[v].home == Home::slab && p_.values[v].persistent) {
        plan_.places[v].first = 0;
        plan_.places[v].last = n;
      }
  }

  void make_groups() {
    for (size_t i = 0; i < p_.step.size(); ++i) {
      const Op& op = p_.step[i];
      for (size_t k = 0; k < op.out.size(); ++k)
        if (planned(op.out[k]) && at(op.out[k]).group < 0) join_or_start(op, k, static_cast<int>(i));
      if (planned(op.scratch)) start(op.scratch);
    }
    for (size_t v = 0; v < p_.values.size(); ++v)  // written by `prepare` or the host
      if (p_.values[v].home == Home::slab && plan_.places[v].group < 0 && plan_.places[v].last >= 0)
        start(static_cast<ValueId>(v));
  }
  void start(ValueId v) {
    at(v).group = static_cast<int>(groups_.size());
    const bool gradient = p_[v].persistent && p_[v].param >= 0;
    groups_.push_back(
        {p_[v].bytes(), at(v).first, at(v).last, p_[v].persistent, gradient ? p_[v].param : 1 << 30, 0, {v}});
  }
  // The output takes the memory of an input that ends here, where the op allows it.
  void join_or_start(const Op& op, size_t k, int i) {
    const ValueId out = op.out[k];
    if (in_place_ && !p_[out].persistent)
      for (const auto& [from, to] : op.def->in_place) {
        if (to != k || from >= op.in.size() || !planned(op.in[from])) continue;
        const ValueId in = op.in[from];
        Group& g = groups_[static_cast<size_t>(at(in).group)];
        // The input itself, not its group, is to be as large: each element takes the place of its own.
        if (g.persistent || g.last != i || p_[in].bytes() < p_[out].bytes()) continue;
        at(out).group = at(in).group;
        g.last = at(out).last;
        g.members.push_back(out);
        ++plan_.in_place;
        return;
      }
    start(out);
  }

  void place() {
    std::vector<Group*> order;
    for (Group& g : groups_) order.push_back(&g);
    std::stable_sort(order.begin(), order.end(), [](const Group* a, const Group* b) {
      if (a->persistent != b->persistent) return a->persistent;
      return a->persistent ? a->order < b->order : a->bytes > b->bytes;
    });
    std::vector<const Group*> placed;  // by offset
    for (Group* g : order) {
      int64_t offset = 0;
      for (const Group* other : placed) {
        if (other->last < g->first || g->last < other->first) continue;
        if (offset + padded(g->bytes) <= other->offset) break;
        offset = std::max(offset, other->offset + padded(other->bytes));
      }
      g->offset = offset;
      placed.insert(std::upper_bound(placed.begin(), placed.end(), g,
                                     [](const Group* a, const Group* b) { return a->offset < b->offset; }),
                    g);
    }
  }

  void count_live() {
    plan_.live_bytes.assign(p_.step.size(), 0);
    for (const Group& g : groups_)
      for (int i = g.first; i <= g.last && i < static_cast<int>(p_.step.size()); ++i)
        plan_.live_bytes[static_cast<size_t>(i)] += padded(g.bytes);
  }

  const Program& p_;
  bool in_place_;
  MemoryPlan plan_;
  std::vector<Group> groups_;
};

}  // namespace

MemoryPlan plan_memory(const Program& program, bool in_place) { return Planner(program, in_place).run(); }

void verify(const Program& program, const MemoryPlan& plan) {
  struct Held {
    size_t value;
    int64_t begin, end;  // bytes of the slab
    int first, last;     // ops of the step
    int group;
  };
  std::vector<Held> held;
  for (size_t v = 0; v < plan.places.size(); ++v) {
    const MemoryPlan::Place& place = plan.places[v];
    if (place.offset < 0) continue;
    held.push_back({v, place.offset, place.offset + program.values[v].bytes(), place.first, place.last, place.group});
    if (held.back().begin % MemoryPlan::kAlign != 0 || held.back().end > plan.bytes)
      throw Error("memory plan: '" + program.values[v].name + "' is misaligned or outside the slab");
  }
  // So that all that live together with one, and begin no earlier, are its next.
  std::stable_sort(held.begin(), held.end(), [](const Held& a, const Held& b) { return a.first < b.first; });
  for (auto a = held.begin(); a != held.end(); ++a)
    for (auto b = a + 1; b != held.end() && b->first <= a->last; ++b) {
      const std::string& one = program.values[a->value].name;
      const std::string& other = program.values[b->value].name;
      if (a->group != b->group) {
        if (a->begin < b->end && b->begin < a->end)
          throw Error("memory plan: '" + one + "' and '" + other + "' share memory while both live");
      } else if (a->last > b->first || (a->first == b->first && b->last > a->first)) {
        // Within a group a value's life must end where the next one's begins.
        throw Error("memory plan: '" + other + "' overwrites '" + one + "', which is read later");
      }
    }
}

}  // namespace convolt
