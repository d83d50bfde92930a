// Pooling and slicing of NHWC pictures in double. The backward passes scatter, where the kernels gather.
#pragma once

#include <vector>

#include "convolt/shape.h"
#include "pool.h"

namespace convolt::reference {

// [N, H', W', C].
Shape pooled_shape(const Shape& x, const PoolWindow& window);

struct MaxPooled {
  std::vector<double> y;
  std::vector<double> index;  // row * kernel_w + column of the first largest in the window; of the first NaN if any
};
MaxPooled max_pool(const std::vector<double>& x, const Shape& shape, const PoolWindow& window);
std::vector<double> max_pool_backward(const std::vector<double>& dy, const std::vector<double>& x, const Shape& shape,
                                      const PoolWindow& window);
std::vector<double> avg_pool(const std::vector<double>& x, const Shape& shape, const PoolWindow& window);
std::vector<double> avg_pool_backward(const std::vector<double>& dy, const Shape& shape, const PoolWindow& window);
std::vector<double> global_avg_pool(const std::vector<double>& x, const Shape& shape);
std::vector<double> global_avg_pool_backward(const std::vector<double>& dy, const Shape& shape);
// To [N, h, w, C].
std::vector<double> adaptive_avg_pool(const std::vector<double>& x, const Shape& shape, int64_t h, int64_t w);
std::vector<double> adaptive_avg_pool_backward(const std::vector<double>& dy, const Shape& shape, int64_t h, int64_t w);

// Shapes: `shape` of x, `channels` of y.
std::vector<double> slice_pad(const std::vector<double>& x, const Shape& shape, int64_t channels, int stride,
                              int channels_before);
std::vector<double> slice_pad_backward(const std::vector<double>& dy, const Shape& shape, int64_t channels, int stride,
                                       int channels_before);

}  // namespace convolt::reference
