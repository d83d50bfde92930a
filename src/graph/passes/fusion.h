// What the passes that fuse batch norms with their neighbours share. They rewrite the whole op list of a training step,
// gradients included.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/op.h"

namespace convolt {

// Who writes and who reads each value of the step; of one moment.
class Uses {
public:
  explicit Uses(const Program& program);
  // The op that writes v, null where none does.
  Op* writer(ValueId v) const { return v == kNoValue ? nullptr : writers_[static_cast<size_t>(v)]; }
  // The ops that read v, each once, in order.
  std::span<Op* const> readers(ValueId v) const {
    const auto i = static_cast<size_t>(v);
    return std::span(readers_).subspan(first_reader_[i], first_reader_[i + 1] - first_reader_[i]);
  }
  // The only reader of v if that is such an op, else null.
  Op* sole_reader(ValueId v, const OpDef& def) const;

private:
  std::vector<Op*> writers_;
  std::vector<Op*> readers_;  // of all values, one after the other: passes make this anew for each op they look at
  std::vector<size_t> first_reader_;
};

// The two ops that a batch norm's gradient is made of, where nothing else reads what arrives; null both otherwise.
struct BnBackward {
  Op *reduce = nullptr, *apply = nullptr;
};
BnBackward bn_backward_of(const Uses& uses, ValueId arriving);

// Counts where a pass applied, and the reasons where it did not, for the log of the program.
class PassReport {
public:
  // "statistics: 52 in the epilogues of convolutions; 1 not: no kernel (conv1)"
  PassReport(Program& program, std::string pass, std::string what);
  ~PassReport();
  PassReport(const PassReport&) = delete;
  PassReport& operator=(const PassReport&) = delete;
  void applied() { ++applied_; }
  void refused(const std::string& why, const std::string& layer);

private:
  Program& program_;
  std::string pass_, what_;
  int applied_ = 0;
  std::map<std::string, std::vector<std::string>> refused_;  // layers by reason
};

// Whether there is a kernel for a fused convolution or linear layer, or it may be composed of plain ones.
struct Fusions {
  ConvProvider& provider;
  bool compose = false;
  // Whether a fused convolution is no slower than a plain one and a sweep for the rest; unset: it is taken to be.
  std::function<bool(const ConvDesc&)> pays = {};
  template <class Desc>
  bool has(const Desc& desc) const {
    return !provider.candidates(desc).empty();
  }
  template <class Desc>
  bool offer(const Desc& desc) const {
    return compose || has(desc);
  }
};

// Removes the ops that a pass has emptied.
void remove_emptied(Program& program);

}  // namespace convolt
