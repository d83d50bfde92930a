#include <algorithm>

#include "graph/layer.h"

namespace convolt {

const std::vector<const LayerDef*>& all_layer_kinds() {
  static const std::vector<const LayerDef*> table = [] {
    std::vector<const LayerDef*> all;
    for (const auto kinds : {elementwise_kinds, batch_norm_kinds, channel_kinds, convolution_kinds, norm_kinds,
                             pooling_kinds, resample_kinds, stochastic_depth_kinds})
      for (const LayerDef* kind : kinds()) all.push_back(kind);
    return all;
  }();
  return table;
}

const LayerDef* find_layer_kind(std::string_view kind) {
  const auto& all = all_layer_kinds();
  const auto found = std::find_if(all.begin(), all.end(), [&](const LayerDef* def) { return def->kind == kind; });
  return found == all.end() ? nullptr : *found;
}

}  // namespace convolt
