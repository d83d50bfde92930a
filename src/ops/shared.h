// What several files of ops say of their operands.
#pragma once

#include "graph/layer.h"
#include "graph/op.h"

namespace convolt {

inline void expect_picture(const Layer& layer, const Shape& in) {
  if (in.rank() != 3) layer_error(layer, "expected a picture [H, W, C], found " + in.to_string());
}

// Of a tensor whose last dimension is channels.
inline int64_t rows_of(const Shape& s) { return s.elements() / s[-1]; }

inline const BnAttrs& bn(const Op& op) { return std::get<BnAttrs>(op.attrs); }
inline const PoolWindow& window(const Op& op) { return std::get<PoolAttrs>(op.attrs).window; }

// Types of outputs: those of the first operand; or none, where whoever adds the op sets them.
inline std::vector<TensorType> as_first(const Op& op, const Program& p) {
  return {{p[op.in[0]].dtype, p[op.in[0]].shape}};
}
inline std::vector<TensorType> preset(const Op&, const Program&) { return {}; }

}  // namespace convolt
