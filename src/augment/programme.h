// Policies of augmentation: which operations a sample gets, and how much of each.
#pragma once

#include "augment/dice.h"

namespace convolt {

// What comes of the draws of one sample.
struct DrawnProgramme {
  Affine map;                  // of the geometric operations that one sampling can do: output -> output before them
  PictureProgramme programme;  // all others, in their order
};
// `drawn`: gets what was drawn, for explain(); may be null.
DrawnProgramme draw_programme(const AugmentOptions& options, const Dice& dice,
                              std::vector<DrawnValues>* drawn = nullptr);

// Whether a sample may have a programme, and which scratch it needs.
bool may_have_programme(const AugmentOptions& options);
bool mixes_chains(const AugmentOptions& options);
bool blurs(const AugmentOptions& options);
// The most steps that a sample's programme may have.
int most_steps(const AugmentOptions& options);

}  // namespace convolt
