// Eigenvectors of small symmetric matrices.
#pragma once

#include <vector>

namespace convolt {

struct Eigen {
  std::vector<double> values;                // ascending
  std::vector<std::vector<double>> vectors;  // of length 1, in the same order
};

// Of a symmetric matrix, by Jacobi's rotations (cyclic; G. Golub, C. Van Loan, Matrix Computations, section 8.5).
Eigen eigen_of(std::vector<std::vector<double>> matrix);

}  // namespace convolt
