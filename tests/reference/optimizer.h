// The update formulas of optimizers in double, element by element, as their papers, torch.optim and timm print them.
#pragma once

#include <cstdint>
#include <vector>

#include "convolt/optimizer_kind.h"

namespace convolt::reference {

struct Optimizer {
  OptimizerKind kind = OptimizerKind::sgd;
  double rate = 0.1, momentum = 0.9, weight_decay = 0;
  bool nesterov = false;
  double beta1 = 0.9, beta2 = 0.999, alpha = 0.99, eps = 1e-8, trust = 0.001;
  bool adapts = true;
  // muon: 0 rows for what is no matrix and learns by sgd with Nesterov momentum.
  size_t rows = 0;
  double matrix_momentum = 0.95;
  int iterations = 3;
  bool renormalise = false;
  // Updates the weights w and the moments (0 at the start, of w's size) by the gradient g; `number` counts from 1.
  void step(std::vector<double>& w, std::vector<double>& first, std::vector<double>& second,
            const std::vector<double>& g, int64_t number) const;

private:
  void matrix_step(std::vector<double>& w, std::vector<double>& v, const std::vector<double>& g) const;
  void lamb_step(std::vector<double>& w, std::vector<double>& m, std::vector<double>& s, const std::vector<double>& g,
                 int64_t number) const;
};

// K. Jordan's Newton-Schulz iteration on the matrix g [rows, g.size() / rows], over its norm.
std::vector<double> orthogonalised(const std::vector<double>& g, size_t rows, int iterations);

double norm(const std::vector<double>& v);
// As torch.nn.utils.clip_grad_norm_ with these tensors: returns the norm before.
double clip_by_norm(std::vector<std::vector<double>>& gradients, double largest);
// Adaptive clipping of rows of `unit` elements.
void clip_by_units(std::vector<double>& g, const std::vector<double>& w, size_t unit, double part);

}  // namespace convolt::reference
