#include "depthwise.h"
#include "exec/row_sums.h"

namespace convolt {
namespace {

// In packets of 16 bytes on a GPU and of eight channels on the CPU, where the channels fill them.
template <int K, int S, class T>
void sum_rows_of(Stream s, const Tensor& x, const Tensor& dy, const Chunks& chunks, float* partials,
                 const ConvWindow& k) {
  const int64_t channels = x.shape[3];
  if (s.cuda && channels % kPacket<T> == 0)
    return sum_rows_on_cuda(s, chunks, partials, RowSums<T, K, S, kPacket<T>, 1>(x, dy, k));
  if (!s.cuda && channels % 8 == 0) return sum_rows_on_cpu(chunks, partials, RowSums<T, K, S, 8, 1>(x, dy, k));
  sum_rows(s, chunks, partials, RowSums<T, K, S, 1, 1>(x, dy, k));
}

template <int K, class T>
void sum_rows_of(Stream s, const Tensor& x, const Tensor& dy, const Chunks& chunks, float* partials,
                 const ConvWindow& k) {
  if (k.stride_w == 1) return sum_rows_of<K, 1, T>(s, x, dy, chunks, partials, k);
  sum_rows_of<K, 2, T>(s, x, dy, chunks, partials, k);
}

}  // namespace

int64_t depthwise_wgrad_scratch(const Shape& dy, DType dtype, int kernel) {
  return Chunks(dy, dtype).count * kernel * kernel * dy[3] * 4;
}

void depthwise_wgrad(Stream s, const Tensor& x, const Tensor& dy, float* scratch, const Tensor& dw,
                     const ConvWindow& window) {
  const Chunks chunks(dy.shape, dy.dtype);
  dispatch_float(dy.dtype, "depthwise_wgrad", [&](auto t) {
    using T = decltype(t);
    if (window.kernel == 3) sum_rows_of<3, T>(s, x, dy, chunks, scratch, window);
    if (window.kernel == 5) sum_rows_of<5, T>(s, x, dy, chunks, scratch, window);
    if (window.kernel == 7) sum_rows_of<7, T>(s, x, dy, chunks, scratch, window);
    join<T>(s, chunks, scratch, dw);
  });
}

}  // namespace convolt
