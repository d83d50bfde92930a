// Muon's directions: momentum made nearly orthogonal, all matrices of a network in the same few launches.
//
// K. Jordan, "Muon: an optimizer for hidden layers in neural networks", 2024. With v = mu v + g and u = g + mu v as a
// matrix of at most as many rows as columns (else transposed), X = u / (|u| + 1e-7), and in each iteration
//   A = X X^T,  X = a X + (b A + c A A) X,  (a, b, c) = (3.4445, -4.7750, 2.0315)
// which brings the singular values of X towards 1 (to about 0.7 .. 1.2 after five). All of it in f32: with tensor cores
// it would be bf16, and the launches are a small part of a step as they are.
#pragma once

#include <vector>

#include "optimizer.h"

namespace convolt {

// Makes `tensor`, number `index` of its table, a matrix of [rows, columns]: fills in its fields, appends the tiles, and
// adds to the sizes.
struct MatrixTables {
  std::vector<MatrixTile> grams, matrices;
  MatrixSizes sizes;
  void add(OptimizerTensor& tensor, int32_t index, int64_t rows, int64_t columns);
};

// Of optimizer_update(), between the launch that decides whether there is an update and the update: the new momentum,
// and in the scratch the direction of each matrix.
void muon_directions(Stream s, const UpdateArgs& args);
int muon_launches(const UpdateRule& rule);

// Multiplications and additions of an update of these tensors; bytes that it moves beside those of an sgd update. 0 for
// other kinds.
int64_t muon_flops(const std::vector<OptimizerTensor>& tensors, const UpdateRule& rule);
int64_t muon_bytes(const std::vector<OptimizerTensor>& tensors, const UpdateRule& rule);

}  // namespace convolt
