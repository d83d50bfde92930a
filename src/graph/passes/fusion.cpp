#include "graph/passes/fusion.h"

#include <fmt/format.h>

#include <algorithm>

namespace convolt {

Uses::Uses(const Program& program) : writers_(program.values.size()), readers_(program.values.size()) {
  for (const Op& op : program.step) {
    Op* const p = const_cast<Op*>(&op);  // the program is the caller's to change
    for (const ValueId v : op.out)
      if (v != kNoValue) writers_[static_cast<size_t>(v)] = p;
    for (const ValueId v : op.in)
      if (v != kNoValue)
        if (auto& known = readers_[static_cast<size_t>(v)]; known.empty() || known.back() != p) known.push_back(p);
  }
}

Op* Uses::sole_reader(ValueId v, const OpDef& def) const {
  const auto& all = readers(v);
  return all.size() == 1 && all[0]->def == &def ? all[0] : nullptr;
}

BnBackward bn_backward_of(const Uses& uses, ValueId arriving) {
  BnBackward found;
  for (Op* op : uses.readers(arriving)) {
    if (op->in[0] != arriving) return {};
    if (op->def == &ops::bn_backward_reduce && found.reduce == nullptr)
      found.reduce = op;
    else if (op->def == &ops::bn_backward_apply && found.apply == nullptr)
      found.apply = op;
    else
      return {};
  }
  if (found.reduce == nullptr || found.apply == nullptr || found.reduce->in[1] != found.apply->in[1]) return {};
  return found;
}

PassReport::PassReport(Program& program, std::string pass, std::string what)
    : program_(program), pass_(std::move(pass)), what_(std::move(what)) {}

void PassReport::refused(const std::string& why, const std::string& layer) { refused_[why].push_back(layer); }

PassReport::~PassReport() {
  if (applied_ == 0 && refused_.empty()) return;
  std::string line = fmt::format("{}: {} {}", pass_, applied_, what_);
  for (const auto& [why, layers] : refused_) {
    line += fmt::format("; {} not: {} ({}", layers.size(), why, layers.front());
    line += layers.size() > 1 ? fmt::format(" .. {})", layers.back()) : ")";
  }
  program_.pass_log.push_back(std::move(line));
}

void remove_emptied(Program& program) {
  std::erase_if(program.step, [](const Op& op) { return op.def == nullptr; });
}

}  // namespace convolt
