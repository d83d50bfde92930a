// augment.h. The parts of pictures that are cropped and the output count once; twice what is read again for contrast;
// not what the operations of a policy move.
#include <algorithm>

#include "augment/policy.h"
#include "bench/kernel_rows.h"

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

}  // namespace

std::vector<KernelRow> augment_rows() {
  return {{"augment crop", make_crop},
          {"augment crop rotate", make_rotate},
          {"augment crop colour", make_colour},
          {"augment crop policy", make_policy}};
}

}  // namespace convolt::bench
