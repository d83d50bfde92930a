// Which sample is in which row of which batch of a loader.
#pragma once

#include <cstdint>
#include <optional>

#include "convolt/dataset.h"
#include "convolt/loader.h"
#include "data/order.h"

namespace convolt {

// Batches are numbered from 0 at the start (and restart) of the loader. A pure function of the options and the data
// set, which must outlive it. Thread-safe.
class BatchOrder {
public:
  BatchOrder(const Dataset& data, const LoaderOptions& options);

  int64_t steps_per_epoch() const;
  // Where this rank's part of each global batch begins.
  int64_t first_row() const { return int64_t{options_.rank} * part(); }
  // Training goes on for ever.
  bool has(int64_t batch) const { return options_.training || batch < steps_per_epoch(); }
  int64_t step_of(int64_t batch) const { return batch + (options_.training ? options_.first_step : 0); }
  uint32_t epoch_of(int64_t batch) const;
  // Of the row in its epoch, over all ranks.
  int64_t position_of(int64_t batch, int row) const;
  // Nothing for a row of padding.
  std::optional<Shown> operator()(int64_t batch, int row) const;

private:
  int64_t group() const { return options_.training ? options_.group : 1; }
  // Rows of a global batch that are this rank's.
  int64_t part() const { return options_.batch * group(); }
  const LoaderOptions options_;
  const int64_t size_;
  const Order order_;
};

}  // namespace convolt
