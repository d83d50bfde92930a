// Mixup and CutMix, by timm's names.
#include "flags.h"
#include "word_table.h"

namespace convolt::cli {
namespace {
using Mode = MixOptions::Mode;
const WordTable<Mode> kModes{{"batch", Mode::batch}, {"pair", Mode::pair}, {"elem", Mode::elem}};
}  // namespace

void MixFlags::add(FlagSet& flags) {
  flags.group("Augmentation");
  flags
      .option("--mixup", mixup,
              "blend each picture and its label with another's of the batch, by a part from Beta(ALPHA, ALPHA); 0: off")
      .check(at_least(0));
  flags
      .option("--cutmix", cutmix,
              "a box of another picture instead, of a part of the area from Beta(ALPHA, ALPHA), and of the label; "
              "0: off")
      .check(at_least(0));
  flags.option("--mixup-prob", prob, "probability of either").check(between(0.0, 1.0));
  flags.option("--mixup-switch-prob", switch_prob, "probability of the box where both are on").check(between(0.0, 1.0));
  flags
      .option("--mixup-mode", mode,
              "what is drawn together: batch: all of a batch; pair: two that are mixed with each other; elem: each "
              "picture alone")
      .check(name_in(kModes));
  flags.option("--mixup-off-epoch", off_epoch, "mix for so many epochs and no longer; 0: to the end")
      .check(at_least(0));
}

MixOptions MixFlags::options() const {
  MixOptions o;
  o.mixup_alpha = mixup;
  o.cutmix_alpha = cutmix;
  o.prob = prob;
  o.switch_prob = switch_prob;
  o.mode = value_of(mode, kModes);
  o.off_epoch = off_epoch;
  const MixOptions none;
  const auto idle = [&](bool changed, const char* flag) {
    if (changed && !mixes(o)) warn(std::string(flag) + " changes nothing: give --mixup or --cutmix too");
  };
  idle(o.prob != none.prob, "--mixup-prob");
  idle(o.switch_prob != none.switch_prob, "--mixup-switch-prob");
  idle(o.mode != none.mode, "--mixup-mode");
  idle(o.off_epoch != none.off_epoch, "--mixup-off-epoch");
  return o;
}

}  // namespace convolt::cli
