// From options to what the rows of a batch are mixed with.
#pragma once

#include <cstdint>
#include <span>

#include "convolt/mixing.h"
#include "convolt/step.h"

namespace convolt {

// Throws UsageError for numbers that make no sense.
void check(const MixOptions& options);

// A place of an epoch in which something is drawn.
struct MixKey {
  uint64_t seed = 0;
  uint32_t epoch = 0;
  int64_t position = 0;  // of a row in the epoch
};

// A number from Beta(alpha, alpha), alpha > 0: x / (x + y) of two from Gamma(alpha), each by G. Marsaglia and
// W. W. Tsang, "A simple method for generating gamma variables", ACM TOMS 26(3), 2000, and by their section 6 for alpha
// below 1, in logarithms, so that it cannot underflow to 0 / 0. Pure: attempt k of x takes
// random4(seed, RandomUse::mixing, epoch, position, 1 + 2 k), of y those of 2 + 2 k.
double draw_beta(float alpha, const MixKey& key);

// What is drawn at a place for pictures of that size, by the rules of timm's Mixup (timm/data/mixup.py).
RowMix draw_mix(const MixOptions& options, int height, int width, const MixKey& key);

// Fills `mixes` for the rows of a batch, which have the positions from first.position on: drawn at that of the first
// row of the batch, of the pair, or at each row's, as the mode says. Pairs with a row of weight 0 are not mixed.
void draw_mixes(const MixOptions& options, int height, int width, const MixKey& first, std::span<const float> weights,
                std::span<RowMix> mixes);

}  // namespace convolt
