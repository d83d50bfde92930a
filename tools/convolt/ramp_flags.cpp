// Progressive resizing, by the names of FFCV's training of ResNet-50.
#include "flags.h"

namespace convolt::cli {

void RampFlags::add(FlagSet& flags) {
  flags.group("Pictures");
  const Flag min_res =
      flags
          .option("--min-res", least,
                  "progressive resizing: the side of the first epochs' training pictures; the last ones have "
                  "--train-crop-size")
          .check(at_least(1));
  flags.option("--start-ramp", start, "the epoch, from 0, after which they grow [0]").check(at_least(0)).needs(min_res);
  flags.option("--end-ramp", end, "the epoch from which they have their full size; --min-res needs it")
      .check(at_least(1))
      .needs(min_res);
  flags.option("--res-step", step, "sides between the two are multiples of this [32]")
      .check(at_least(1))
      .needs(min_res);
}

SizeRamp RampFlags::options() const {
  const SizeRamp usual;
  return {.least = least.value_or(usual.least),
          .start = start.value_or(usual.start),
          .end = end.value_or(usual.end),
          .step = step.value_or(usual.step)};
}

}  // namespace convolt::cli
