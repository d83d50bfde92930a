// Removes ops whose results nobody reads, from the end to the front.
#include <algorithm>
#include <set>

#include "graph/lower.h"
#include "graph/op.h"

namespace convolt {

void remove_dead_code(Program& p) {
  std::set<ValueId> live{p.logits, p.exposed_logits};
  for (const ValueId g : p.gradients) live.insert(g);
  size_t removed = 0;
  const auto sweep = [&](std::vector<Op>& ops) {
    std::vector<Op> kept;
    for (auto op = ops.rbegin(); op != ops.rend(); ++op) {
      const bool read =
          std::any_of(op->out.begin(), op->out.end(), [&](ValueId v) { return v != kNoValue && live.count(v) > 0; });
      if (!read && !op->def->effects) {
        ++removed;
        continue;
      }
      for (const ValueId v : op->in) live.insert(v);
      kept.push_back(std::move(*op));
    }
    std::reverse(kept.begin(), kept.end());
    ops = std::move(kept);
  };
  // 16-bit copies are read by other plans too, but each plan refreshes what it reads.
  sweep(p.step);
  sweep(p.prepare);
  if (removed > 0) p.pass_log.push_back("dead_code: " + std::to_string(removed) + " ops");
}

}  // namespace convolt
