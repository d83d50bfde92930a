// A small data set in memory: grey 12x12 pictures of three classes (where the bright bar lies), some of them
// unreadable, some with a label that makes the loss NaN.
#pragma once

#include <cmath>
#include <set>

#include "convolt/convolt.h"
#include "core/philox.h"

namespace convolt::test {

class MadeSet : public Dataset {
public:
  static constexpr int kSide = 12;
  explicit MadeSet(int64_t size, std::set<int64_t> broken = {}, std::set<int64_t> mislabelled = {})
      : size_(size), broken_(std::move(broken)), mislabelled_(std::move(mislabelled)) {
    class_names_ = {"left", "middle", "right"};
  }
  int64_t size() const override { return size_; }
  int32_t label(int64_t i) const override { return mislabelled_.count(i) > 0 ? -1 : static_cast<int32_t>(i % 3); }
  std::string name(int64_t i) const override { return "made[" + std::to_string(i) + "]"; }
  std::string describe() const override { return "made"; }
  int channels() const override { return 1; }
  int fixed_height() const override { return kSide; }
  int fixed_width() const override { return kSide; }
  RawSample read(int64_t i) const override {
    if (broken_.count(i) > 0) throw DataError(name(i) + ": broken on purpose");
    RawSample s{std::vector<uint8_t>(kSide * kSide), kSide, kSide, 1};
    for (int p = 0; p < kSide * kSide; ++p) {
      const bool bar = p % kSide / 4 == label(i);
      const Philox4 noise = philox(7, static_cast<uint64_t>(i), static_cast<uint64_t>(p));
      s.bytes[static_cast<size_t>(p)] = static_cast<uint8_t>((bar ? 120 : 40) + noise.v[0] % 80);
    }
    return s;
  }

private:
  int64_t size_;
  std::set<int64_t> broken_, mislabelled_;
};

inline AugmentOptions made_pictures() {
  AugmentOptions a;
  a.height = a.width = MadeSet::kSide;
  a.channels = 1;
  a.geometry = AugmentOptions::Geometry::none;
  a.mean.fill(0.3F);
  a.std.fill(0.25F);
  return a;
}

// Convolution, batch norm, dropout and a linear layer: everything that a resumed training must bring along.
inline void made_network(Graph& g) {
  Value x = g.input("image", {MadeSet::kSide, MadeSet::kSide, 1});
  x = relu(batch_norm(conv2d(x, 8, {.name = "conv1", .padding = 1}), {.name = "bn1"}));
  x = max_pool(x);
  x = relu(batch_norm(conv2d(x, 8, {.name = "conv2", .padding = 1}), {.name = "bn2"}));
  x = dropout(flatten(x), 0.2F);
  g.output(linear(x, 3, {.name = "fc"}));
}

inline TrainOptions made_options() {
  TrainOptions o;
  o.epochs = 3;
  o.batch = 16;
  o.workers = 2;
  o.optimizer = {.momentum = 0.9F, .weight_decay = 1e-4F};
  o.schedule.base = 0.05;
  o.augment = made_pictures();
  o.augment.hflip = 0;
  o.augment.brightness = 0.2F;
  o.augment.crop_padding = 1;
  o.augment.geometry = AugmentOptions::Geometry::crop_with_padding;
  o.preprocessing = made_pictures();
  o.seed = 3;
  o.log_every = 2;
  return o;
}

inline ModelCard made_card() {
  ModelCard c;
  c.model = "made";
  c.classes = 3;
  c.channels = 1;
  c.height = c.width = MadeSet::kSide;
  c.class_names = {"left", "middle", "right"};
  c.preprocessing = made_pictures();
  c.configuration = "{}";
  return c;
}

}  // namespace convolt::test
