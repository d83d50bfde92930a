// augment.h and mix.h. The parts of pictures that are cropped and the output count once; twice what is read again for
// contrast; not what the operations of a policy move. Rows that are mixed are read and written once, whole or not.
#include <algorithm>

#include "augment/policy.h"
#include "bench/kernel_rows.h"
#include "mix.h"

namespace convolt::bench {

Work augment_work(Operands& o, const AugmentOptions& options) {
  const int64_t picture = int64_t{kPictureHeight} * kPictureWidth * options.channels;
  const int64_t output = int64_t{options.height} * options.width * options.channels * size_of(o.dtype());
  const int64_t n = std::max<int64_t>(1, o.tensor_bytes() / output);
  const int64_t scratch = augment_scratch(options, n);
  AugmentArgs args = augment_args(options, n, scratch > 0 ? o.scratch(scratch) : nullptr);
  args.y = o.written({n, options.height, options.width, options.channels});
  std::vector<SampleRecord> records;
  for (int64_t i = 0; i < n; ++i) {
    SampleRecord r =
        make_record(options, kPictureHeight, kPictureWidth, options.channels, 0, 0, static_cast<uint64_t>(i));
    r.offset += i * picture;
    const double area = static_cast<double>(r.box[2] - r.box[0]) * static_cast<double>(r.box[3] - r.box[1]);
    o.count(static_cast<int64_t>(area) * options.channels * (args.contrast ? 2 : 1));
    records.push_back(r);
  }
  args.input = o.structs<StepInput>({{.records = o.structs(records), .pixels = o.random_bytes(n * picture)}});
  return [args](Stream s) { augment(s, args); };
}

namespace {

Work make_crop(Operands& o) { return augment_work(o, {.hflip = 0.5F}); }
Work make_rotate(Operands& o) { return augment_work(o, {.hflip = 0.5F, .rotate = 15}); }
Work make_colour(Operands& o) {
  return augment_work(o, {.hflip = 0.5F, .brightness = 0.4F, .contrast = 0.4F, .saturation = 0.4F, .hue = 0.1F});
}

Work make_policy(Operands& o) {
  return augment_work(o, {.hflip = 0.5F, .policy = AugmentOptions::Policy::rand_augment});
}

// Pairs of pictures of a network's usual size, all in the same way.
Work mix_work(Operands& o, const RowMix& mixture) {
  const int64_t pictures = std::max<int64_t>(2, o.pictures(224, 3)[0]);
  const Tensor y = o.uncounted(o.dtype(), {pictures, 224, 224, 3});
  o.count(2 * y.bytes() / pictures * (pictures / 2 * 2));  // the middle one of an odd number stays
  const std::vector<RowMix> mixes(static_cast<size_t>(pictures), mixture);
  const MixArgs args{o.structs<StepInput>({{.mixes = o.structs(mixes)}}), y, {}};
  return [args](Stream s) { mix(s, args); };
}
Work make_mixup(Operands& o) { return mix_work(o, {.part = 0.7F}); }
Work make_cutmix(Operands& o) { return mix_work(o, {.part = 0.75F, .box = {56, 56, 112, 112}}); }

}  // namespace

std::vector<KernelRow> augment_rows() {
  return {{"augment crop", make_crop},
          {"augment crop rotate", make_rotate},
          {"augment crop colour", make_colour},
          {"augment crop policy", make_policy},
          {"mix mixup", make_mixup},
          {"mix cutmix", make_cutmix}};
}

}  // namespace convolt::bench
