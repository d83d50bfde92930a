// Pictures laid out for the first convolution: blocks as large as its stride become one pixel, and channels are filled
// up, so that it has a stride of 1 over channels in eights. Matrix units take those, and cuDNN fuses statistics with
// them; three channels get neither.
#include "graph/lower.h"
#include "graph/passes/fusion.h"

namespace convolt {
namespace {

// The first convolution and its weight gradient, the only readers of the pictures; `mix` changes them where they lie.
struct Stem {
  Op *conv = nullptr, *wgrad = nullptr;
};
Stem stem_of(const Uses& uses, ValueId image) {
  Stem stem;
  for (Op* op : uses.readers(image)) {
    if (op->def == &ops::mix) continue;
    Op*& place = op->def == &ops::conv_fprop ? stem.conv : stem.wgrad;
    if ((op->def != &ops::conv_fprop && op->def != &ops::conv_wgrad) || place != nullptr || op->in[0] != image)
      return {};
    place = op;
  }
  return stem;
}

// Why not, empty if it can be done.
std::string obstacle(const Stem& stem, const Fusions& fusions) {
  if (stem.conv == nullptr) return "not one convolution alone reads the pictures";
  const ConvDesc& d = std::get<ConvAttrs>(stem.conv->attrs).desc;
  const ConvGeometry& g = d.geometry;
  const bool wanted = size_of(d.dtype) == 2 && g.in_c % fusions.provider.channel_alignment() != 0;
  if (!wanted && !fusions.compose) return "the library takes the channels as they are";
  const int b = g.stride_h;
  if (g.stride_w != b || (b != 1 && b != 2 && b != 4)) return "its stride is not 1, 2 or 4";
  if (g.groups != 1 || g.dilation_h != 1 || g.dilation_w != 1) return "it is grouped or dilated";
  if (g.in_h % b != 0 || g.in_w % b != 0) return "the pictures are no whole blocks";
  return "";
}

// One direction: the window as one of blocks.
struct Axis {
  int shift, kernel, before, after;
};
Axis axis_of(int kernel, int block, int before, int64_t in, int64_t out) {
  Axis a{};
  a.before = (before + block - 1) / block;
  a.shift = a.before * block - before;
  a.kernel = (kernel + a.shift + block - 1) / block;
  a.after = static_cast<int>(out - 1 + a.kernel - a.before - in / block);
  return a;
}

}  // namespace

void lay_out_stem(Program& p, const Fusions& fusions, bool training) {
  PassReport report(p, "stem", "first convolutions over blocks of pixels");
  const ValueId image = p.step[0].out[0];
  const Stem stem = stem_of(Uses(p), image);
  if (const std::string why = obstacle(stem, fusions); !why.empty())
    return report.refused(why, stem.conv != nullptr ? stem.conv->layer : "input");
  ConvGeometry& g = std::get<ConvAttrs>(stem.conv->attrs).desc.geometry;
  const int b = g.stride_h;
  PixelBlocks blocks{b, static_cast<int>(g.in_c), b == 1 ? 8 : 4};
  const Axis h = axis_of(g.kernel_h, b, g.pad.top, g.in_h, g.out_h());
  const Axis w = axis_of(g.kernel_w, b, g.pad.left, g.in_w, g.out_w());
  if (h.after < 0 || w.after < 0) return report.refused("its windows leave out the last pixels", stem.conv->layer);
  ConvGeometry wide = g;
  wide.in_h = g.in_h / b;
  wide.in_w = g.in_w / b;
  wide.in_c = int64_t{b} * b * blocks.stored;
  wide.kernel_h = h.kernel;
  wide.kernel_w = w.kernel;
  wide.stride_h = wide.stride_w = 1;
  wide.pad = {h.before, w.before, h.after, w.after};
  // cuDNN's fusions take the same padding on both sides. What differs becomes a border of the pictures.
  if (h.before != h.after || w.before != w.after) {
    blocks.border = wide.pad;
    wide.in_h += wide.pad.vertical();
    wide.in_w += wide.pad.horizontal();
    wide.pad = {};
    p[image].persistent = true;
    p.zeroed.push_back(image);
  }

  const StemAttrs attrs{blocks, {h.shift, w.shift}};
  const ValueId weights = stem.conv->in[1];
  const auto widened = [&](const char* name, ValueId narrow, bool persistent) {
    return p.add(
        {.name = stem.conv->layer + name, .dtype = p[narrow].dtype, .shape = wide.w_shape(), .persistent = persistent});
  };
  const ValueId wide_weights = widened(".blocks", weights, !training);
  Op widen{
      .def = &ops::stem_weights, .in = {weights}, .out = {wide_weights}, .attrs = attrs, .layer = stem.conv->layer};
  Op narrow{.def = &ops::stem_weights_backward, .attrs = attrs, .layer = stem.conv->layer};
  p[image].shape = wide.x_shape();
  if (auto* augment = std::get_if<AugmentAttrs>(&p.step[0].attrs))
    augment->blocks = blocks;
  else
    p.step[0].attrs = attrs;
  if (p.step[1].def == &ops::mix) p.step[1].attrs = attrs;
  g = wide;
  stem.conv->in[1] = wide_weights;
  if (stem.wgrad != nullptr) {
    std::get<ConvAttrs>(stem.wgrad->attrs).desc.geometry = wide;
    narrow.out = {stem.wgrad->out[0]};
    narrow.in = {stem.wgrad->out[0] = widened(".dblocks", stem.wgrad->out[0], false)};
    const auto at = stem.wgrad - p.step.data();
    p.step.insert(p.step.begin() + at + 1, std::move(narrow));
  }
  if (training)
    p.step.insert(p.step.begin() + 1, std::move(widen));
  else
    p.prepare.push_back(std::move(widen));
  report.applied();
}

}  // namespace convolt
