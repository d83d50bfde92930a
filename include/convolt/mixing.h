// Mixup and CutMix: rows of a training batch are mixed in pairs, row n of N with row N-1-n, and their labels with them.
// What is drawn is a pure function of (seed, epoch, position in the epoch).
#pragma once

#include <cstdint>

namespace convolt {

// As timm's Mixup. By default nothing is mixed.
struct MixOptions {
  // What shares one draw.
  enum class Mode : uint8_t {
    batch,  // all rows of a batch
    pair,   // the two rows that are mixed with each other
    elem,   // nobody: each row has its own
  };
  // A picture becomes part x + (1 - part) of its partner, with part from Beta(alpha, alpha); 0: off (H. Zhang et al.,
  // arXiv 1710.09412).
  float mixup_alpha = 0;
  // A box of the partner's pixels replaces the picture's, of 1 - part of the area with part likewise drawn, around a
  // centre anywhere in the picture and cut at its edges; part then is what is left of the picture. 0: off (S. Yun et
  // al., arXiv 1905.04899).
  float cutmix_alpha = 0;
  float prob = 1;            // that anything is mixed
  float switch_prob = 0.5F;  // of CutMix where both are on
  Mode mode = Mode::batch;
  int off_epoch = 0;  // from this epoch on (the first is 0) nothing is mixed; 0: always mixed
};

// Whether they ever mix.
inline bool mixes(const MixOptions& options) { return options.mixup_alpha > 0 || options.cutmix_alpha > 0; }

}  // namespace convolt
