// Element-wise kernels: activation.h and stochastic_depth.h.
#include "activation.h"

#include <algorithm>

#include "bench/kernel_rows.h"
#include "stochastic_depth.h"

namespace convolt::bench {
namespace {

KernelRow forward(Activation a) {
  return {"activation " + std::string(name_of(a)), [a](Operands& o) -> Work {
            const Tensor x = o.read(o.pictures(56, 64)), y = o.written(x.shape);
            return [=](Stream s) { activation(s, x, y, a); };
          }};
}

KernelRow backward(Activation a) {
  return {"activation_backward " + std::string(name_of(a)), [a](Operands& o) -> Work {
            const Tensor dy = o.read(o.pictures(56, 64)), kept = o.read(dy.shape), dx = o.written(dy.shape);
            return [=](Stream s) { activation_backward(s, dy, kept, dx, a); };
          }};
}

// Of a floating type to another, or the same.
KernelRow cast_row(DType from, DType to) {
  return {"cast " + std::string(name_of(from)) + " to " + std::string(name_of(to)), [=](Operands& o) -> Work {
            const Tensor x = o.read_as(from, {std::max<int64_t>(1, o.tensor_bytes() / 4)}),
                         y = o.written_as(to, x.shape);
            return [=](Stream s) { cast(s, x, y); };
          }};
}

Work make_add(Operands& o) {
  const Tensor a = o.read(o.pictures(56, 64)), b = o.read(a.shape), y = o.written(a.shape);
  o.operations(a.elements());
  return [=](Stream s) { add(s, a, b, y); };
}

Work make_dropout(Operands& o) {
  const Tensor x = o.read(o.matrix(4096)), y = o.written(x.shape);
  const StepInput* input = o.structs<StepInput>({{.step = 1}});
  return [=](Stream s) { dropout(s, x, y, 0.5F, 1, input); };
}

Work make_stochastic_depth(Operands& o) {
  const Tensor x = o.read(o.pictures(56, 64)), y = o.written(x.shape);
  const StepInput* input = o.structs<StepInput>({{.step = 1}});
  return [=](Stream s) { stochastic_depth(s, x, y, 0.2F, 1, input); };
}

Work make_load_images(Operands& o) {
  const Tensor images = o.read_as(DType::f32, o.pictures(224, 3)), y = o.written(images.shape);
  const StepInput* input = o.structs<StepInput>({{.images = images.as<float>()}});
  return [=](Stream s) { load_images(s, input, y); };
}

Work make_fill_zero(Operands& o) {
  const Tensor y = o.written({std::max<int64_t>(1, o.tensor_bytes() / size_of(o.dtype()))});
  return [=](Stream s) { fill_zero(s, y.data, y.bytes()); };
}

}  // namespace

std::vector<KernelRow> activation_rows() {
  std::vector<KernelRow> rows{{"add", make_add}};
  for (const Activation a :
       {Activation::relu, Activation::relu6, Activation::leaky_relu, Activation::silu, Activation::gelu,
        Activation::hardswish, Activation::hardsigmoid, Activation::mish, Activation::sigmoid, Activation::tanh}) {
    rows.push_back(forward(a));
    rows.push_back(backward(a));
  }
  for (const DType t : {DType::f32, DType::bf16, DType::f16}) {
    rows.push_back(cast_row(DType::f32, t));
    if (t != DType::f32) rows.push_back(cast_row(t, DType::f32));
  }
  rows.push_back({"dropout", make_dropout});
  rows.push_back({"stochastic_depth", make_stochastic_depth});
  rows.push_back({"load_images", make_load_images});
  rows.push_back({"fill_zero", make_fill_zero});
  return rows;
}

}  // namespace convolt::bench
