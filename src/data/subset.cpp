// Parts of data sets.
#include <algorithm>
#include <new>
#include <numeric>

#include "convolt/dataset.h"
#include "convolt/error.h"
#include "core/philox.h"
#include "data/order.h"

namespace convolt {
namespace {

class Subset final : public Dataset {
public:
  Subset(std::shared_ptr<const Dataset> data, std::vector<int64_t> samples)
      : data_(std::move(data)), samples_(std::move(samples)) {
    class_names_ = data_->class_names();
    for (const int64_t i : samples_)
      if (i < 0 || i >= data_->size())
        throw UsageError("a part of a data set of " + std::to_string(data_->size()) + " samples cannot have sample " +
                         std::to_string(i));
  }
  int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
  RawSample read(int64_t i) const override { return data_->read(at(i)); }
  int32_t label(int64_t i) const override { return data_->label(at(i)); }
  float weight(int64_t i) const override { return data_->weight(at(i)); }
  std::string name(int64_t i) const override { return data_->name(at(i)); }
  std::string describe() const override { return data_->describe(); }
  bool reads_parts() const override { return data_->reads_parts(); }
  size_t read_part(int64_t i, int64_t offset, std::span<uint8_t> into) const override {
    return data_->read_part(at(i), offset, into);
  }
  std::optional<PictureExtent> extent(int64_t i) const override { return data_->extent(at(i)); }
  void expect(std::span<const int64_t> samples) const noexcept override {
    try {
      std::vector<int64_t> there;
      for (const int64_t i : samples) there.push_back(at(i));
      data_->expect(there);
    } catch (const std::bad_alloc&) {  // a hint less
    }
  }
  bool fetches_ahead() const override { return data_->fetches_ahead(); }
  int channels() const override { return data_->channels(); }
  int fixed_height() const override { return data_->fixed_height(); }
  int fixed_width() const override { return data_->fixed_width(); }

private:
  int64_t at(int64_t i) const { return samples_[static_cast<size_t>(i)]; }
  std::shared_ptr<const Dataset> data_;
  std::vector<int64_t> samples_;
};

// How many of `count` each class gets: its part rounded down, and what is left goes to the largest remainders.
std::vector<int64_t> shares(const std::vector<std::vector<int64_t>>& classes, int64_t count, int64_t all) {
  std::vector<int64_t> share(classes.size()), order(classes.size());
  std::iota(order.begin(), order.end(), 0);
  int64_t left = count;
  const auto product = [&](int64_t c) { return static_cast<int64_t>(classes[static_cast<size_t>(c)].size()) * count; };
  for (const int64_t c : order) left -= share[static_cast<size_t>(c)] = product(c) / all;
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return product(a) % all > product(b) % all; });
  for (int64_t k = 0; k < left; ++k) ++share[static_cast<size_t>(order[static_cast<size_t>(k)])];
  return share;
}

}  // namespace

std::unique_ptr<Dataset> subset(std::shared_ptr<const Dataset> data, std::vector<int64_t> samples) {
  return std::make_unique<Subset>(std::move(data), std::move(samples));
}

std::vector<int64_t> stratified_sample(const Dataset& data, int64_t count, uint64_t seed) {
  count = std::clamp<int64_t>(count, 0, data.size());
  std::vector<std::vector<int64_t>> classes = samples_of_classes(data);
  std::vector<int64_t> chosen;
  if (count == 0) return chosen;
  const std::vector<int64_t> share = shares(classes, count, data.size());
  for (size_t c = 0; c < classes.size(); ++c) {
    // Those with the least draws; ties, of which there is hardly one, by number.
    const auto draw = [&](int64_t i) {
      const Philox4 r = random4(seed, RandomUse::part, 0, static_cast<uint64_t>(i), 0);
      return std::pair{(uint64_t{r.v[0]} << 32) | r.v[1], i};
    };
    std::sort(classes[c].begin(), classes[c].end(), [&](int64_t a, int64_t b) { return draw(a) < draw(b); });
    chosen.insert(chosen.end(), classes[c].begin(), classes[c].begin() + share[c]);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace convolt
