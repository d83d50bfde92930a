#include "bench/kernel_rows.h"

namespace convolt::bench {

Tensor Operands::first_or_other(const Tensor& t) {
  if (shape_.rank() == 0) shape_ = t.shape;
  return t;
}

Tensor Operands::uncounted(DType dtype, const Shape& shape, float low, float high) {
  return first_or_other({dtype, shape, keep(filled(context_, dtype, shape.elements(), low, high)).data()});
}

Tensor Operands::read_as(DType dtype, const Shape& shape, float low, float high) {
  const Tensor t = uncounted(dtype, shape, low, high);
  count(t.bytes());
  return t;
}

Tensor Operands::written_as(DType dtype, const Shape& shape) {
  const Tensor t = first_or_other({dtype, shape, scratch(shape.elements() * size_of(dtype))});
  results_.push_back(t);
  count(t.bytes());
  return t;
}

Tensor Operands::updated(const Shape& shape, float low, float high) {
  const Tensor t = uncounted(DType::f32, shape, low, high);
  count(2 * t.bytes());
  return t;
}

void Operands::prepare(const Work& work) {
  context_.compute().run(work);
  context_.compute().synchronize();
}

std::vector<KernelRow> kernel_rows() {
  std::vector<KernelRow> all;
  for (const auto& family : {batch_norm_rows(), block_rows(), activation_rows(), pool_rows(), norm_rows(),
                             channel_rows(), resample_rows(), loss_rows(), optimizer_rows(), augment_rows()})
    all.insert(all.end(), family.begin(), family.end());
  return all;
}

Row time_kernel(Stopwatch& stopwatch, const Sweep& sweep, const Copy& copy, const std::string& name,
                const Operands& operands, const Work& work, const Sampling& sampling, std::vector<double>& copies) {
  const Work swept = [&](Stream s) { sweep(s); };
  const auto times =
      in_turn(sampling, {[&] { return stopwatch.time([&](Stream s) { copy(s); }, swept); },
                         [&] { return stopwatch.time(work, swept); }, [&] { return stopwatch.time(work, work); }});
  copies.insert(copies.end(), times[0].begin(), times[0].end());
  const double copy_ms = summary_of(times[0]).min * static_cast<double>(operands.bytes()) / copy.moved();
  const auto timing = [&](const char* how, const std::vector<double>& taken) {
    const Summary ms = summary_of(taken);
    return Timing{how, ms, copy_ms / ms.min};
  };
  return {.name = name,
          .dtype = std::string(name_of(operands.dtype())),
          .shape = operands.shape().to_string(),
          .bytes = operands.bytes(),
          .flops = operands.operations(),
          .timings = {timing("cold", times[1]), timing("warm", times[2])}};
}

}  // namespace convolt::bench
