// Runs the candidates of one description on operands of their own, to see whether they are right and how long they
// take.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "conv/plain_sums.h"
#include "convolt/context.h"

namespace convolt {

// Nanoseconds since some moment.
using Clock = std::function<int64_t()>;
Clock steady_clock();

// What a trial needs besides the description.
struct TrialOptions {
  int64_t workspace_bytes = 0, packed_bytes = 0;  // the most of any candidate
  bool packs_each_step = false;                   // packing the weights, or unpacking their gradient, counts
  Clock clock;
};

// The memory is freed with it. One thread at a time; waits for the compute queue.
class KernelTrial {
public:
  // A description that PlainSums knows. Throws OutOfMemoryError.
  KernelTrial(Context& context, const ConvDesc& desc, TrialOptions options);
  // Runs the kernel once. Empty when its result is right, else what is wrong, with the error that it threw.
  std::string check(const ConvKernel& kernel);
  // Nanoseconds of a run, the mean of `runs` in a row.
  int64_t time(const ConvKernel& kernel, int runs);

private:
  // A result that is looked at whole as far as it is short, else at both ends.
  struct Ends {
    std::vector<float> first, last;
  };

  void* result() const;
  void fill(const Buffer& buffer, const Pattern& pattern);
  void spoil(const Buffer& buffer);
  // Both without waiting.
  void pack(Stream s, const ConvKernel& kernel) const;
  void run(Stream s, const ConvKernel& kernel) const;
  std::vector<float> read(int64_t first, int64_t count);
  Ends read_ends();
  std::string wrong_places();
  std::string wrong_sums();
  std::string wrong_bias_gradient();
  void make_norm();
  void make_join();
  void make_linear();
  std::string differs(const std::vector<float>& found, const std::vector<float>& expected) const;

  Context& context_;
  Queue& queue_;
  ConvDesc desc_;
  TrialOptions options_;
  PlainSums sums_;
  Buffer x_, w_, y_, bias_, linear_bias_, packed_, workspace_;
  // Of a prologue: [2, in_c]. Of an epilogue: its batch norm's input; mean, invstd, scale, bias, gamma and beta, f32
  // [6, in_c]; of a join the other gradient, the gate, and the input of a second batch norm, the rest of which is the
  // first one's; two rows of sums for each batch norm; the same by kernels of their own, and what those need.
  Buffer prologue_, normalised_, norm_, joined_, second_, sums_found_, sums_expected_, scratch_;
  // Of the epilogues of linear layers, and the gate of a join.
  Buffer mask_, bias_gradient_;
  std::vector<int64_t> places_;
  std::vector<double> expected_;
  Ends right_;              // of the first kernel that was right
  std::string right_name_;  // empty before there is one
};

}  // namespace convolt
