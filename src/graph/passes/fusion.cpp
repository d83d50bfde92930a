#include "graph/passes/fusion.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace convolt {

Uses::Uses(const Program& program) : writers_(program.values.size()), first_reader_(program.values.size() + 1) {
  const auto each_reading = [&](auto&& note) {
    std::vector<const Op*> last(program.values.size());  // an op that reads a value twice counts once
    for (const Op& op : program.step)
      for (const ValueId v : op.in)
        if (v != kNoValue && std::exchange(last[static_cast<size_t>(v)], &op) != &op)
          note(static_cast<size_t>(v), const_cast<Op*>(&op));  // the program is the caller's to change
  };
  for (const Op& op : program.step)
    for (const ValueId v : op.out)
      if (v != kNoValue) writers_[static_cast<size_t>(v)] = const_cast<Op*>(&op);
  each_reading([&](size_t v, Op*) { ++first_reader_[v + 1]; });
  std::partial_sum(first_reader_.begin(), first_reader_.end(), first_reader_.begin());
  readers_.resize(first_reader_.back());
  std::vector<size_t> next = first_reader_;
  each_reading([&](size_t v, Op* op) { readers_[next[v]++] = op; });
}

Op* Uses::sole_reader(ValueId v, const OpDef& def) const {
  const std::span all = readers(v);
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
