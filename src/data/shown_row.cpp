#include "data/shown_row.h"

#include <vector>

#include "augment/mixing.h"
#include "data/batch_order.h"
#include "data/loader_setup.h"

namespace convolt {
namespace {

void add_mixing(const LoaderOptions& o, const BatchOrder& order, int64_t batch, ShownRow& shown) {
  const auto rows = static_cast<size_t>(o.batch), row = static_cast<size_t>(shown.row);
  const std::vector<float> weights(rows, 1.F);
  std::vector<RowMix> mixes(rows);
  const uint32_t epoch = order.epoch_of(batch);
  const AugmentOptions pictures = pictures_of(o, epoch);
  draw_mixes(o.mixing, pictures.height, pictures.width, {o.seed, epoch, order.position_of(batch, 0)}, weights, mixes);
  shown.mix = mixes[row];
  if (shown.mix.part < 1) shown.partner = order(batch, o.batch - 1 - shown.row)->sample;
}

}  // namespace

std::optional<ShownRow> find_shown_row(const Dataset& data, const LoaderOptions& options, uint32_t epoch,
                                       int64_t sample) {
  LoaderOptions from_the_start = options;
  from_the_start.first_step = 0;
  const BatchOrder order(data, from_the_start);
  const int64_t first = epoch * order.steps_per_epoch();
  for (int64_t batch = first; batch < first + order.steps_per_epoch(); ++batch)
    for (int row = 0; row < options.batch; ++row) {
      const std::optional<Shown> here = order(batch, row);
      if (!here || here->sample != sample) continue;
      ShownRow shown{.batch = batch - first, .row = row, .drawn_as = here->drawn_as};
      if (mixes(options.mixing)) add_mixing(options, order, batch, shown);
      return shown;
    }
  return std::nullopt;
}

}  // namespace convolt
