#include "graph/optimizer_tables.h"

#include <algorithm>

#include "convolt/optimizer.h"

namespace convolt {
namespace {

void append_pieces(std::vector<OptimizerPiece>& pieces, int32_t tensor, int64_t elements, int64_t piece) {
  for (int64_t first = 0; first < elements; first += piece)
    pieces.push_back({tensor, first, std::min(piece, elements - first)});
}

}  // namespace

OptimizerTables optimizer_tables(const OptimizerAttrs& attrs) {
  const Optimizer& optimizer = *attrs.optimizer;
  OptimizerTables tables;
  const auto append = [&](int param) -> OptimizerTensor& {
    OptimizerTensor t{.elements = optimizer.params().specs()[static_cast<size_t>(param)].shape.elements()};
    append_pieces(tables.tiles, static_cast<int32_t>(tables.tensors.size()), t.elements, kOptimizerTile);
    return tables.tensors.emplace_back(t);
  };
  for (const int param : attrs.params) {
    OptimizerTensor& t = append(param);
    const Shape& shape = optimizer.params().specs()[static_cast<size_t>(param)].shape;
    const Optimizer::Settings& settings = optimizer.settings(param);
    t.rate_scale = settings.lr_scale;
    t.weight_decay = settings.weight_decay;
    t.rate = settings.rate;
    t.adapts = shape.rank() > 1;
    const bool by_units = attrs.rule.clip_adaptive > 0 && settings.clipped;
    if (by_units) t.unit = static_cast<int32_t>(t.adapts ? t.elements / shape[0] : t.elements);
    t.first_piece = static_cast<int64_t>(tables.pieces.size());
    append_pieces(tables.pieces, static_cast<int32_t>(tables.tensors.size()) - 1, t.elements,
                  by_units ? t.unit : kOptimizerTile);
    if (optimizer.is_matrix(param))
      tables.matrices.add(t, static_cast<int32_t>(tables.tensors.size()) - 1, shape[0], t.elements / shape[0]);
    t.pieces = static_cast<int64_t>(tables.pieces.size()) - t.first_piece;
  }
  for (const int param : attrs.averaged) append(param);
  return tables;
}

}  // namespace convolt
