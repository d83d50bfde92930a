#include "data/batch_order.h"

namespace convolt {

BatchOrder::BatchOrder(const Dataset& data, const LoaderOptions& options)
    : options_(options),
      size_(data.size()),
      order_(data, options.training ? options.sampler : Sampler::shuffle, options.seed, options.repeats) {}

int64_t BatchOrder::steps_per_epoch() const {
  const int64_t global = part() * options_.ranks;
  return options_.training ? size_ / global * group() : (size_ + global - 1) / global;
}

uint32_t BatchOrder::epoch_of(int64_t batch) const {
  return static_cast<uint32_t>(options_.training ? step_of(batch) / steps_per_epoch() : 0);
}

int64_t BatchOrder::position_of(int64_t batch, int row) const {
  const int64_t index = step_of(batch) % steps_per_epoch();
  return index / group() * part() * options_.ranks + first_row() + index % group() * options_.batch + row;
}

std::optional<Shown> BatchOrder::operator()(int64_t batch, int row) const {
  const int64_t position = position_of(batch, row);
  if (position >= size_) return std::nullopt;
  return options_.training ? order_(epoch_of(batch), position) : Shown{position, static_cast<uint64_t>(position)};
}

}  // namespace convolt
