// The named weights and running statistics of a graph: one slab of device memory, shared by any number of plans.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "convolt/context.h"
#include "convolt/graph.h"
#include "convolt/tensor.h"

namespace convolt {

// Named tensors in device memory. All calls from one thread. Optimizers and plans keep its address: it may be moved
// before they are made and no more. An index that no parameter has is a UsageError wherever one is taken.
class Params {
public:
  // Allocates and initialises from `seed`: each element is a pure function of (seed, parameter index, element). Context
  // must outlive it; the graph need not.
  Params(Context& context, const Graph& graph, uint64_t seed);
  // All 0, for those who set every value.
  static Params zeros(Context& context, const Graph& graph);
  // The same names and values in memory of its own; synchronises.
  Params clone() const;

  // The graph's parameters, by index.
  const std::vector<ParamSpec>& specs() const { return specs_; }
  // Index of the parameter of that name, -1 for none.
  int find(const std::string& name) const;
  // f32, in memory layout. Trainable tensors come first, in graph order, then buffers; each starts on 256 bytes,
  // padding is zero.
  Tensor tensor(int i) const;
  // The 16-bit copy of parameter i that kernels of that dtype read; allocates the whole copy at first use of a dtype.
  // Refreshed by plans.
  Tensor copy(int i, DType dtype);

  // Host values in file layout (OIHW). Synchronise the compute queue. set_values throws ShapeError naming the parameter
  // and both sizes.
  std::vector<float> values(int i) const;
  void set_values(int i, const std::vector<float>& values);

  // Host values of the size of parameter i, from memory layout to file layout. Throws ShapeError for another size.
  std::vector<float> to_file_layout(int i, const std::vector<float>& memory) const;

  // The name of a parameter with a value that is not finite; empty where there is none. Synchronises.
  std::string find_non_finite() const;

  // Moves with every change of the values; plans that derive something from them compare it.
  int64_t version() const { return version_; }
  void touch() { ++version_; }
  // Training steps whose batch statistics entered the running ones (num_batches_tracked).
  int64_t batches_tracked = 0;

  // Where they live.
  Context& context() const { return *context_; }
  // Bytes asked of the device allocator so far, and the bytes up to the end of the trainable tensors.
  int64_t bytes() const;
  // What bytes() is once there is a copy of that dtype.
  int64_t bytes_with_copy(DType dtype) const;
  int64_t trainable_bytes() const { return trainable_bytes_; }
  // Byte offset of parameter i in the f32 slab.
  int64_t offset(int i) const { return offsets_[place(i)]; }
  // specs()[i] of an index that one has.
  const ParamSpec& spec(int i) const { return specs_[place(i)]; }

private:
  explicit Params(Context& context) : context_(&context) {}
  Params(Context& context, const Graph& graph);
  size_t place(int i) const;
  Context* context_;
  std::vector<ParamSpec> specs_;
  std::vector<int64_t> offsets_;
  int64_t trainable_bytes_ = 0;
  Buffer slab_;
  std::map<DType, Buffer> copies_;
  int64_t version_ = 1;
};

}  // namespace convolt
