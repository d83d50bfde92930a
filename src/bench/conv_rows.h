// Every candidate of the convolutions and fully connected layers of a network, in each pass.
#pragma once

#include <variant>

#include "bench/limits.h"
#include "conv/conv.h"
#include "convolt/plan.h"

namespace convolt::bench {

// One description that a network's step runs.
struct ConvCase {
  std::string layer;  // the first of those that it is the same for
  int count = 1;      // how many those are
  std::variant<ConvDesc, LinearDesc> desc;

  ConvPass pass() const;
  std::string shape() const;  // "n128 32x32x16 -> 32, 3x3 s2 p1", "n128 512 -> 10"
  int64_t flops() const;      // multiply-adds times two, of the plain sums
  int64_t x() const;          // elements of input, weights and output
  int64_t w() const;
  int64_t y() const;
};
const char* name_of(ConvPass pass);  // "fprop"

// Of a training step, layer by layer in the order of the network, each with its passes.
std::vector<ConvCase> conv_cases(const Graph& graph, const PlanOptions& options);

// A row for the case, a timing for each candidate in the provider's order, measured in turn; packing of the weights and
// unpacking of their gradient included, as in a step. The fraction is of the roofline: the bytes of input, weights and
// output at the copy's bandwidth or the FLOP at the matrix product's rate, whichever takes longer. By Winograd's
// algorithm, which multiplies less than is counted, it may be above 1.
Row time_candidates(Stopwatch& stopwatch, const ConvCase& c, const Limit& copy, const Limit& matmul,
                    const Sampling& sampling);

}  // namespace convolt::bench
