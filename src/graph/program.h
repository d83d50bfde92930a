// The op list a graph is lowered to: values with a type and a home, ops between them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "activation.h"
#include "block_end.h"
#include "conv/conv.h"
#include "convolt/augment.h"
#include "convolt/loss.h"
#include "convolt/shape.h"
#include "norm.h"
#include "optimizer.h"
#include "pool.h"
#include "resample.h"
#include "stem.h"

namespace convolt {

// Where a value lives.
enum class Home : uint8_t {
  slab,   // planned by lifetime
  param,  // f32 in Params; `param` says which
  copy,   // the 16-bit copy in Params
};

class Optimizer;
using ValueId = int;
constexpr ValueId kNoValue = -1;

struct ValueInfo {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  Home home = Home::slab;
  int param = -1;
  bool persistent =
      false;  // slab: lives from before the first op to after the last (written by `prepare`, or read by the host)
  int64_t bytes() const { return shape.elements() * size_of(dtype); }
};

struct ConvAttrs {
  ConvDesc desc;
};
struct LinearAttrs {
  LinearDesc desc;
};
struct BnAttrs {
  float eps = 1e-5F, momentum = 0.1F;
  Act act;
  ValueId gamma = kNoValue, beta = kNoValue;  // whose gradients bn_apply's gradient makes
  int64_t rows = 0;                           // of the batch that bn_finalize divides by
  bool frozen = false;                        // the statistics are constants
  bool residual_gradient = false;             // bn_backward_apply has a second output, the gradient of the residual
  bool raw_sums = false;                      // bn_finalize reads those of a convolution's epilogue
  std::optional<DType> low;                   // bn_finalize has a second output, [2, C]: scale and bias of this dtype
  bool mask = false;                          // bn_apply has a second output, the bits of its ReLU
  Gate gate = Gate::none;                     // of bn_backward_join
  int64_t mean = 0;                           // bn_apply_mean: over so many pixels of each picture
  int64_t spread = 0;                         // of bn_backward_join: what arrives is the gradient of a mean
};
struct ActAttrs {
  Act act;
};
struct PoolAttrs {
  PoolWindow window;
  bool index = false;  // max_pool has a second output, for its gradient
};
struct PooledSize {
  int h = 1, w = 1;
};
struct PadAttrs {
  Padding padding;
  float value = 0;
};
struct ResampleAttrs {
  Size2 size;
  ResampleFilter filter = ResampleFilter::nearest;
};
struct SliceAttrs {
  int stride = 1, channels_before = 0;
};
struct DropoutAttrs {
  float p = 0;
  uint32_t layer = 0;
};
struct NormAttrs {
  NormSets sets;
  float eps = 1e-5F;
};
// Of concat and split: the channels of each part, in order; a part without a value counts too.
struct PartsAttrs {
  std::vector<int64_t> channels;
};
struct ShuffleAttrs {
  int64_t groups = 1;
};
struct LossAttrs {
  LossOptions options;
  bool gradient = false;
  bool leaves_out_bad = false;
  bool mixed = false;  // labels, as StepInput::mixes says
};
struct AugmentAttrs {
  AugmentOptions options;
  PixelBlocks blocks;  // channels 0: plain
};
// Of load_images, of mix, and of the weights of the first convolution.
struct StemAttrs {
  PixelBlocks blocks;
  StemShift shift;
};
// The op's inputs are the gradients of `params`.
struct OptimizerAttrs {
  const Optimizer* optimizer = nullptr;
  UpdateRule rule;
  std::vector<int> params;
  std::vector<int> averaged;  // what the update does not touch and the average follows: buffers
};
using Attrs = std::variant<std::monostate, ConvAttrs, LinearAttrs, BnAttrs, ActAttrs, PoolAttrs, PooledSize, PadAttrs,
                           ResampleAttrs, SliceAttrs, DropoutAttrs, NormAttrs, PartsAttrs, ShuffleAttrs, LossAttrs,
                           AugmentAttrs, StemAttrs, OptimizerAttrs>;

struct OpDef;

struct Op {
  const OpDef* def = nullptr;
  std::vector<ValueId> in, out;
  Attrs attrs;
  std::string layer;                   // the graph layer it came from
  ValueId scratch = kNoValue;          // memory of its own while it runs
  std::shared_ptr<ConvKernel> kernel;  // of convolutions, linear layers and their packing
  bool view = false;                   // of flatten: the memory plan gave the output the input's memory
  bool composed = false;               // a fused convolution that runs as plain kernels: the provider has no other
  std::string note;                    // what a pass did here, for describe()
};

// A persistent f32 value that the plan fills once.
struct Constant {
  ValueId value = kNoValue;
  std::vector<float> data;
};

struct Program {
  std::vector<ValueInfo> values;
  std::vector<Op> prepare;  // run when the parameters have changed from outside
  std::vector<Op> step;
  ValueId logits = kNoValue;
  ValueId step_input = kNoValue, step_status = kNoValue, meters = kNoValue;
  ValueId exposed_logits = kNoValue;  // f32, where PlanOptions ask for them
  std::vector<Constant> constants;
  std::vector<ValueId> zeroed;       // persistent, filled with 0 once
  std::vector<ValueId> gradients;    // per parameter, kNoValue where there is none
  std::vector<bool> trained;         // per parameter: trainable and not frozen
  ValueId gradient_sums = kNoValue;  // f32, laid out as the trainable part of Params: with accumulation
  std::vector<std::string> pass_log;

  ValueId add(ValueInfo info) {
    values.push_back(std::move(info));
    return static_cast<ValueId>(values.size()) - 1;
  }
  // Of the parameter's 16-bit copy, 0 where no op reads one.
  int64_t copy_bytes(int param) const {
    for (const ValueInfo& v : values)
      if (v.home == Home::copy && v.param == param) return v.bytes();
    return 0;
  }
  const ValueInfo& operator[](ValueId id) const { return values[static_cast<size_t>(id)]; }
  ValueInfo& operator[](ValueId id) { return values[static_cast<size_t>(id)]; }
};

}  // namespace convolt
