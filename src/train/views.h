// Test-time augmentation: one picture seen in several ways, and what the network says on average.
#pragma once

#include <vector>

#include "convolt/augment.h"
#include "convolt/plan.h"

namespace convolt {

// The number of views. Throws UsageError where there are none of that number (EvalOptions::views), and for crops of
// pictures that are smaller than the crop.
int checked_views(int views, const AugmentOptions& pictures);

// Whether they are crops at the edges of the picture. Those are edges of the record's box, which a JPEG that is decoded
// at a smaller scale has only to a part of a pixel.
bool are_crops(int views);

// Queues the step of `input` as the first of so many views sees it.
void run_first_view(Plan& plan, const StepInput& input, int views);
// Their mean logits, f32 [batch, K]: of the first view, which is the last step of the plan, and of the others, which
// are run. Synchronises.
std::vector<float> mean_of_views(Plan& plan, const StepInput& input, int views);

}  // namespace convolt
