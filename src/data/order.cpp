#include "data/order.h"

#include <algorithm>
#include <map>

#include "data/sampler.h"

namespace convolt {
namespace {

uint64_t bits64(const Philox4& r) { return uint64_t{r.v[0]} << 32 | r.v[1]; }

std::vector<double> running_sum(const Dataset& data) {
  std::vector<double> sums;
  double sum = 0;
  for (int64_t i = 0; i < data.size(); ++i) sums.push_back(sum += static_cast<double>(data.weight(i)));
  return sums;
}

}  // namespace

std::vector<std::vector<int64_t>> samples_of_classes(const Dataset& data) {
  std::map<int32_t, std::vector<int64_t>> found;
  for (int64_t i = 0; i < data.size(); ++i) found[data.label(i)].push_back(i);
  std::vector<std::vector<int64_t>> classes;
  for (auto& [label, samples] : found) classes.push_back(std::move(samples));
  return classes;
}

Order::Order(const Dataset& data, Sampler sampler, uint64_t seed, int repeats)
    : sampler_(sampler), seed_(seed), size_(data.size()), repeats_(repeats) {
  if (sampler == Sampler::balanced) classes_ = samples_of_classes(data);
  if (sampler == Sampler::weighted) below_ = running_sum(data);
}

Shown Order::operator()(uint32_t epoch, int64_t position) const {
  const Shown shown = once(epoch, position / repeats_);
  const int64_t turn = static_cast<int64_t>(shown.drawn_as) / size_ * repeats_ + position % repeats_;
  return {shown.sample, static_cast<uint64_t>(shown.sample + size_ * turn)};
}

Shown Order::once(uint32_t epoch, int64_t position) const {
  if (sampler_ == Sampler::balanced) return balanced(epoch, position);
  if (sampler_ == Sampler::weighted) return weighted(epoch, position);
  const int64_t sample = Permutation(size_, seed_, epoch)(position);
  return {sample, static_cast<uint64_t>(sample)};
}

// Each round of as many positions as there are classes shows each class once, in an order of its own; a class shows
// each of its samples once before it begins again, in another order.
Shown Order::balanced(uint32_t epoch, int64_t position) const {
  const auto count = static_cast<int64_t>(classes_.size());
  const int64_t round = position / count;
  const uint64_t of_round = bits64(random4(seed_, RandomUse::balance, epoch, static_cast<uint64_t>(round), 0));
  const int64_t c = Permutation(count, of_round, epoch)(position % count);
  const std::vector<int64_t>& samples = classes_[static_cast<size_t>(c)];
  const auto size = static_cast<int64_t>(samples.size());
  const int64_t pass = round / size;
  const uint64_t of_pass =
      bits64(random4(seed_, RandomUse::balance, epoch, static_cast<uint64_t>(pass), static_cast<uint32_t>(c) + 1));
  const int64_t sample = samples[static_cast<size_t>(Permutation(size, of_pass, epoch)(round % size))];
  return {sample, static_cast<uint64_t>(sample + size_ * pass)};
}

// With replacement.
Shown Order::weighted(uint32_t epoch, int64_t position) const {
  const uint64_t bits = bits64(random4(seed_, RandomUse::weighted, epoch, static_cast<uint64_t>(position), 0));
  const double at = static_cast<double>(bits >> 11) * 0x1p-53 * below_.back();
  const auto found = std::upper_bound(below_.begin(), below_.end(), at);
  const int64_t sample = std::min(static_cast<int64_t>(found - below_.begin()), size_ - 1);
  return {sample, static_cast<uint64_t>(sample + size_ * (position + 1))};
}

}  // namespace convolt
