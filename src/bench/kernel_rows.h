// The table of `convolt bench kernels`: for each kernel its operands, the bytes that it must move, and its call.
#pragma once

#include "bench/limits.h"
#include "bench/memory.h"
#include "convolt/augment.h"
#include "convolt/tensor.h"

namespace convolt::bench {

// Of a tensor whose last dimension is channels.
inline int64_t rows_of(const Tensor& x) { return x.elements() / x.shape[-1]; }

// Operands of one kernel call. Each counts towards the row's bytes once for each time that it must be read or written;
// scratch and what is as small as a row of channels do not count.
class Operands {
public:
  // dtype: of activations; tensor_bytes: about as large as the largest tensor is made.
  Operands(Context& context, DType dtype, int64_t tensor_bytes)
      : context_(context), dtype_(dtype), tensor_bytes_(tensor_bytes) {}
  DType dtype() const { return dtype_; }
  int64_t tensor_bytes() const { return tensor_bytes_; }

  // Shapes of about tensor_bytes in dtype(): [N, side, side, channels], [N, columns].
  Shape pictures(int64_t side, int64_t channels) const {
    return {outermost(side * side * channels), side, side, channels};
  }
  Shape matrix(int64_t columns) const { return {outermost(columns), columns}; }

  // Tensors of dtype() or another. Values of those that are read are uniform in [low, high).
  Tensor read(const Shape& shape, float low = -1, float high = 1) { return read_as(dtype_, shape, low, high); }
  Tensor read_as(DType dtype, const Shape& shape, float low = -1, float high = 1);
  Tensor written(const Shape& shape) { return written_as(dtype_, shape); }
  Tensor written_as(DType dtype, const Shape& shape);
  Tensor updated(const Shape& shape, float low = -1, float high = 1);  // f32
  // Additions, multiplications and comparisons, where the roofline shows the kernel.
  void operations(int64_t n) { operations_ += n; }
  // What else must be moved: a second pass over a tensor, a part of one that is uncounted.
  void count(int64_t bytes) { bytes_ += bytes; }

  // Not counted.
  Tensor uncounted(DType dtype, const Shape& shape, float low = -1, float high = 1);
  float* table(int64_t n, float low = -1, float high = 1) {
    return keep(filled(context_, DType::f32, n, low, high)).as<float>();
  }
  float* scratch(int64_t bytes) { return keep(Buffer(context_, bytes)).as<float>(); }
  uint8_t* random_bytes(int64_t bytes) { return keep(filled_bytes(context_, bytes)).as<uint8_t>(); }
  template <class T>
  T* structs(const std::vector<T>& values) {
    return keep(uploaded(context_, values)).template as<T>();
  }
  // What must have run before the kernel can.
  void prepare(const Work& work);

  int64_t bytes() const { return bytes_; }
  int64_t operations() const { return operations_; }
  const std::vector<Tensor>& results() const { return results_; }
  const Shape& shape() const { return shape_; }  // of the first tensor

private:
  const Buffer& keep(Buffer buffer) {
    memory_.push_back(std::move(buffer));
    return memory_.back();
  }
  int64_t outermost(int64_t inner) const {
    return std::max<int64_t>(1, (tensor_bytes_ + inner * size_of(dtype_) / 2) / (inner * size_of(dtype_)));
  }
  Tensor first_or_other(const Tensor& t);

  Context& context_;
  DType dtype_;
  int64_t tensor_bytes_;
  std::vector<Buffer> memory_;
  std::vector<Tensor> results_;  // written
  int64_t bytes_ = 0, operations_ = 0;
  Shape shape_;
};

struct KernelRow {
  std::string name;
  std::function<Work(Operands& operands)> make;
};

// By the headers of kernels/.
std::vector<KernelRow> activation_rows();
std::vector<KernelRow> batch_norm_rows();
std::vector<KernelRow> block_rows();
std::vector<KernelRow> norm_rows();
std::vector<KernelRow> pool_rows();
std::vector<KernelRow> channel_rows();
std::vector<KernelRow> resample_rows();
std::vector<KernelRow> loss_rows();
std::vector<KernelRow> optimizer_rows();
std::vector<KernelRow> augment_rows();
std::vector<KernelRow> kernel_rows();  // all of them

// The augment kernel on pictures of this size, with what make_record() draws for each.
constexpr int kPictureHeight = 375, kPictureWidth = 500;
Work augment_work(Operands& operands, const AugmentOptions& options);

// Times a kernel beside a copy, in turn. "cold": nothing that it reads is in the caches; "warm": right after another
// call. Fractions are of the copy's best bandwidth among the same rounds. Appends the copy's milliseconds to `copies`.
Row time_kernel(Stopwatch& stopwatch, const Sweep& sweep, const Copy& copy, const std::string& name,
                const Operands& operands, const Work& work, const Sampling& sampling, std::vector<double>& copies);

}  // namespace convolt::bench
