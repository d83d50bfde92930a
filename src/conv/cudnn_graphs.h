// Convolutions and their fusions as graphs of cuDNN. Part of conv_cudnn.cpp, which alone includes it, behind
// cudnn_frontend.h.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "conv/conv.h"

namespace convolt::cudnn_graphs {

namespace fe = cudnn_frontend;
using TensorPtr = std::shared_ptr<fe::graph::Tensor_attributes>;
using Mode = fe::PointwiseMode_t;

// A plan takes its pointers in the order of these numbers.
enum Uid : int64_t {
  kX = 1,
  kW,
  kY,
  kBias,
  kScale,  // of the prologue, with kShift
  kShift,
  kSum,  // of the epilogue stats, with kSquares
  kSquares,
  kNormalised,  // of the epilogue drelu_bn_reduce, all the rest; the last three are outputs that nobody reads
  kMean,
  kInverseDeviation,
  kGamma,
  kBeta,
  kDGamma,
  kDBeta,
  kUnused1,
  kUnused2,
  kUnused3,
};
struct Pointers {
  std::array<void*, 16> p{};
  int n = 0;
  void add(const void* pointer) { p.at(static_cast<size_t>(n++)) = const_cast<void*>(pointer); }
};

// The frontend shows the notes of a plan only to its own classes.
class Graph : public fe::graph::Graph {
public:
  bool has(int64_t index, fe::NumericalNote_t note) const { return contains(plans.numeric_notes, index, note); }
  bool has(int64_t index, fe::BehaviorNote_t note) const { return contains(plans.behavior_notes, index, note); }

private:
  template <class Note>
  static bool contains(const std::vector<std::vector<Note>>& notes, int64_t index, Note note) {
    const auto& of_plan = notes[static_cast<size_t>(index)];
    return std::find(of_plan.begin(), of_plan.end(), note) != of_plan.end();
  }
};

inline fe::DataType_t cudnn_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return fe::DataType_t::FLOAT;
    case DType::bf16:
      return fe::DataType_t::BFLOAT16;
    case DType::f16:
      return fe::DataType_t::HALF;
    default:
      throw DeviceError("cuDNN convolutions take f32, bf16 or f16, found " + std::string(name_of(dtype)));
  }
}

// [N, H, W, C] memory as cuDNN wants it told: extents in the order N, C, H, W, strides of the channels-last layout.
// OHWI weights are the same with O for N.
template <class Attributes>
Attributes& channels_last(Attributes& tensor, const Shape& s) {
  tensor.set_dim({s[0], s[3], s[1], s[2]}).set_stride({s[1] * s[2] * s[3], 1, s[2] * s[3], s[3]});
  return tensor;
}
inline TensorPtr input(Graph& graph, const Shape& shape, Uid uid) {
  fe::graph::Tensor_attributes tensor;
  channels_last(tensor, shape).set_uid(uid);
  return graph.tensor(tensor);
}
inline void output(const TensorPtr& tensor, const Shape& shape, Uid uid, fe::DataType_t type) {
  channels_last(*tensor, shape).set_output(true).set_uid(uid).set_data_type(type);
}
inline TensorPtr per_channel(Graph& graph, int64_t channels, Uid uid, fe::DataType_t type) {
  return graph.tensor(fe::graph::Tensor_attributes()
                          .set_dim({1, channels, 1, 1})
                          .set_stride({channels, 1, channels, channels})
                          .set_uid(uid)
                          .set_data_type(type));
}
inline TensorPtr pointwise(Graph& graph, Mode mode, const TensorPtr& a, const TensorPtr& b) {
  return graph.pointwise(a, b, fe::graph::Pointwise_attributes().set_mode(mode));
}

template <class Attributes>
Attributes attributes_of(const ConvGeometry& g) {
  return Attributes()
      .set_pre_padding({g.pad.top, g.pad.left})
      .set_post_padding({g.pad.bottom, g.pad.right})
      .set_stride({g.stride_h, g.stride_w})
      .set_dilation({g.dilation_h, g.dilation_w});
}

// x, or relu(x * scale + shift) of it, in the storage type as the engines want it.
inline TensorPtr picture(Graph& graph, const ConvDesc& desc) {
  TensorPtr x = input(graph, desc.geometry.x_shape(), kX);
  if (desc.prologue == ConvPrologue::none) return x;
  const int64_t channels = desc.geometry.in_c;
  x = pointwise(graph, Mode::MUL, x, per_channel(graph, channels, kScale, cudnn_type(desc.dtype)));
  x = pointwise(graph, Mode::ADD, x, per_channel(graph, channels, kShift, cudnn_type(desc.dtype)));
  return graph.pointwise(x, fe::graph::Pointwise_attributes().set_mode(Mode::RELU_FWD));
}

// y + bias (f32, one per channel), then the activation; everything before the store stays f32.
inline TensorPtr add_bias(Graph& graph, TensorPtr y, const ConvDesc& desc) {
  y = pointwise(graph, Mode::ADD, y, per_channel(graph, desc.geometry.out_c, kBias, fe::DataType_t::FLOAT));
  if (desc.epilogue == ConvEpilogue::bias) return y;
  auto relu = fe::graph::Pointwise_attributes().set_mode(Mode::RELU_FWD);
  if (desc.epilogue == ConvEpilogue::bias_relu6) relu.set_relu_upper_clip(6.F);
  return graph.pointwise(y, relu);
}

inline void set_float_output(const TensorPtr& tensor, Uid uid) {
  tensor->set_output(true).set_uid(uid).set_data_type(fe::DataType_t::FLOAT);
}

inline void describe_fprop(Graph& graph, const ConvDesc& desc) {
  const ConvGeometry& g = desc.geometry;
  auto y = graph.conv_fprop(picture(graph, desc), input(graph, g.w_shape(), kW),
                            attributes_of<fe::graph::Conv_fprop_attributes>(g));
  if (desc.epilogue == ConvEpilogue::stats) {
    const auto sums = graph.genstats(y, fe::graph::Genstats_attributes());
    set_float_output(sums[0], kSum);
    set_float_output(sums[1], kSquares);
  } else if (desc.epilogue != ConvEpilogue::none) {
    y = add_bias(graph, y, desc);
  }
  output(y, g.y_shape(), kY, cudnn_type(desc.dtype));
}

// The gradient of relu at the batch norm's output, which is computed again, and the sums of its gradient.
inline TensorPtr add_relu_and_sums(Graph& graph, const TensorPtr& dx, const ConvGeometry& g) {
  const auto vector = [&](Uid uid) { return per_channel(graph, g.in_c, uid, fe::DataType_t::FLOAT); };
  const TensorPtr x = input(graph, g.x_shape(), kNormalised), mean = vector(kMean),
                  deviation = vector(kInverseDeviation), gamma = vector(kGamma);
  TensorPtr y = pointwise(graph, Mode::MUL, pointwise(graph, Mode::SUB, x, mean), deviation);
  y = pointwise(graph, Mode::ADD, pointwise(graph, Mode::MUL, y, gamma), vector(kBeta));
  const TensorPtr dz = pointwise(graph, Mode::RELU_BWD, dx, y);
  const auto sums = graph.dbn_weight(dz, x, mean, deviation, gamma, fe::graph::DBN_weight_attributes());
  const Uid uids[] = {kDGamma, kDBeta, kUnused1, kUnused2, kUnused3};
  for (size_t i = 0; i < sums.size(); ++i) set_float_output(sums[i], uids[i]);
  return dz;
}

inline void describe_operation(Graph& graph, const ConvDesc& desc) {
  const ConvGeometry& g = desc.geometry;
  const fe::DataType_t type = cudnn_type(desc.dtype);
  if (desc.pass == ConvPass::fprop) return describe_fprop(graph, desc);
  if (desc.pass == ConvPass::dgrad) {
    auto dx = graph.conv_dgrad(input(graph, g.y_shape(), kY), input(graph, g.w_shape(), kW),
                               attributes_of<fe::graph::Conv_dgrad_attributes>(g));
    if (desc.epilogue == ConvEpilogue::drelu_bn_reduce) {
      const Shape s = g.x_shape();  // of a strided convolution the frontend cannot infer it
      dx->set_dim({s[0], s[3], s[1], s[2]});
      dx = add_relu_and_sums(graph, dx, g);
    }
    output(dx, g.x_shape(), kX, type);
  } else {
    output(graph.conv_wgrad(input(graph, g.y_shape(), kY), picture(graph, desc),
                            attributes_of<fe::graph::Conv_wgrad_attributes>(g)),
           g.w_shape(), kW, type);
  }
}

inline bool fuses_batch_norm(const ConvDesc& desc) {
  return desc.prologue != ConvPrologue::none || desc.epilogue == ConvEpilogue::stats ||
         desc.epilogue == ConvEpilogue::drelu_bn_reduce;
}

// What lies between the fused steps: the engines of forward fusions keep the storage type, those of dgrad f32.
inline fe::DataType_t intermediate_type(const ConvDesc& desc) {
  return fuses_batch_norm(desc) && desc.pass != ConvPass::dgrad ? cudnn_type(desc.dtype) : fe::DataType_t::FLOAT;
}

// Which combinations are worth asking about.
inline bool is_offered(const ConvDesc& desc) {
  if (fuses_batch_norm(desc)) {
    if (desc.dtype != DType::f16 || desc.prologue == ConvPrologue::scale_bias) return false;
    if (desc.pass == ConvPass::fprop) return desc.epilogue == ConvEpilogue::stats;
    return desc.pass == ConvPass::dgrad
               ? desc.epilogue == ConvEpilogue::drelu_bn_reduce && desc.prologue == ConvPrologue::none
               : desc.epilogue == ConvEpilogue::none;
  }
  if (desc.epilogue == ConvEpilogue::none) return true;
  return desc.pass == ConvPass::fprop;
}

// Room before the workspace for the outputs of dgrad's sums that nobody reads.
inline int64_t unused_bytes(const ConvDesc& desc) {
  return desc.epilogue == ConvEpilogue::drelu_bn_reduce ? (desc.geometry.in_c * 12 + 255) / 256 * 256 : 0;
}

// In the order of Uid. The frontend takes pointers as void*, also those that it only reads.
inline Pointers pointers_of(const ConvDesc& desc, const ConvArgs& a) {
  const int64_t in = desc.geometry.in_c, out = desc.geometry.out_c;
  Pointers p;
  for (const void* operand : {a.x, a.w, a.y}) p.add(operand);
  if (desc.prologue != ConvPrologue::none) {
    p.add(a.prologue);
    p.add(static_cast<const char*>(a.prologue) + in * size_of(desc.dtype));
  }
  if (desc.epilogue == ConvEpilogue::stats) {
    p.add(a.sums);
    p.add(a.sums + out);
  } else if (desc.epilogue == ConvEpilogue::drelu_bn_reduce) {
    auto* const unused = static_cast<float*>(a.workspace);
    p.add(a.normalised_x);
    for (const float* vector : {a.coef, a.coef + in, a.gamma, a.beta}) p.add(vector);
    for (const float* sum : {a.dgamma, a.dbeta, unused, unused + in, unused + 2 * in}) p.add(sum);
  } else if (desc.epilogue != ConvEpilogue::none) {
    p.add(a.bias);
  }
  return p;
}

}  // namespace convolt::cudnn_graphs
