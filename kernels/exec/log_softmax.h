// What blocks do that work on one row each: sums over its columns, and the way from logits to log-probabilities.
#pragma once

#include "exec/block.h"
#include "exec/elementary.h"

namespace convolt {

constexpr int kRowThreads = 128;
using RowBlock = Block<kRowThreads>;

// Joins shared values of the first `count` threads of a block (all of them, if there are fewer) into the one of thread
// 0, in a fixed tree: join(t, other).
template <int B, class F>
HD void tree(const Block<B>& block, int64_t count, F join) {
  for (int width = B / 2; width > 0; width /= 2)
    if (width < count)
      block.phase_of(width, [&](int t) {
        if (t + width < count) join(t, t + width);
      });
}

struct RowShared {
  float a[kRowThreads], b[kRowThreads];
  int index[kRowThreads];
};

// f(j, a, b) for all j < count, thread t those of j % kRowThreads == t in order, with its a and b, which begin at `a`
// and `b`. On the CPU all threads take their first j, then all their second: such loops vectorise.
template <class F>
HD void for_columns(const RowBlock& block, RowShared& shared, int64_t count, float a, float b, F f) {
#if defined(__CUDA_ARCH__)
  block.phase([&](int t) {
    float own_a = a, own_b = b;
    for (int64_t j = t; j < count; j += kRowThreads) f(j, own_a, own_b);
    shared.a[t] = own_a;
    shared.b[t] = own_b;
  });
#else
  (void)block;
  const int64_t used = std::min<int64_t>(count, kRowThreads);
  std::fill_n(shared.a, used, a);
  std::fill_n(shared.b, used, b);
  for (int64_t first = 0; first < count; first += kRowThreads) {
    const int64_t n = std::min<int64_t>(count - first, kRowThreads);
    for (int64_t t = 0; t < n; ++t) f(first + t, shared.a[t], shared.b[t]);
  }
#endif
}

// f(j) for all j < count, in any order.
template <class F>
HD void for_each_column(const RowBlock& block, int64_t count, F f) {
#if defined(__CUDA_ARCH__)
  block.phase([&](int t) {
    for (int64_t j = t; j < count; j += kRowThreads) f(j);
  });
#else
  (void)block;
  for (int64_t j = 0; j < count; ++j) f(j);
#endif
}

// Sums what f(j, a, b) adds to a and b over all j < count, of which there is one at least, into the two places given.
template <class F>
HD void sum_pairs(const RowBlock& block, RowShared& shared, int64_t count, float& sum_a, float& sum_b, F f) {
  for_columns(block, shared, count, 0, 0, f);
  tree(block, count, [&](int t, int u) {
    shared.a[t] += shared.a[u];
    shared.b[t] += shared.b[u];
  });
  block.phase_of(1, [&](int) {
    sum_a = shared.a[0];
    sum_b = shared.b[0];
  });
}

// What turns a row of logits, divided by a temperature, into log-probabilities.
struct Normaliser {
  float largest, log_sum;  // of exp(x - largest)
  HD float log_probability(float scaled) const { return (scaled - largest) - log_sum; }
};

// NaN and +infinity among the logits make log_sum NaN.
template <class T>
HD void normalise(const RowBlock& block, RowShared& shared, const T* x, int classes, float scale, Normaliser& out) {
  for_columns(block, shared, classes, -INFINITY, 0, [=](int64_t j, float& largest, float&) {
    const float v = static_cast<float>(x[j]) * scale;
    largest = v > largest ? v : largest;
  });
  tree(block, classes, [&](int t, int u) { shared.a[t] = fmaxf(shared.a[t], shared.a[u]); });
  block.phase_of(1, [&](int) { out.largest = shared.a[0]; });
  const float largest = out.largest;
  for_columns(block, shared, classes, 0, 0,
              [=](int64_t j, float& sum, float&) { sum += fast_exp(static_cast<float>(x[j]) * scale - largest); });
  tree(block, classes, [&](int t, int u) { shared.a[t] += shared.a[u]; });
  block.phase_of(1, [&](int) { out.log_sum = logf(shared.a[0]); });
}

}  // namespace convolt
