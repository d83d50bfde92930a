// What a first convolution reads, laid out for matrix units: blocks of pixels become one pixel of more channels (space
// to depth), and channels are filled up with zeros. A convolution whose stride is the block is then one of stride 1
// over fewer, wider pixels: the same products, and others that are 0.
#pragma once

#include "convolt/context.h"
#include "convolt/tensor.h"
#include "step_state.h"

namespace convolt {

// Of pictures [N, H, W, channels] as [N, H / block, W / block, block * block * stored]: pixel (h, w) has the channels
// from (h % block * block + w % block) * stored on of pixel (h / block, w / block); those behind `channels` are 0.
// Around them lies a border of blocks, which kernels leave as it is: 0.
struct PixelBlocks {
  int block = 1, channels = 0, stored = 0;
  Padding border = {};
};

// y = StepInput::images, f32 [N, H, W, channels], so laid out. Moves 1 element per element of the pictures, and y.
void load_images(Stream s, const StepInput* input, const PixelBlocks& layout, const Tensor& y);

// The weights w [O, kh, kw, channels] of a convolution of stride `block` as those of one of stride 1 over such pixels,
// y [O, KH, KW, block * block * stored]: y(R, S, (dr, ds, c)) = w(R * block + dr - down, S * block + ds - right, c), 0
// outside. down, right: how many pixels the first block begins before the window.
struct StemShift {
  int down = 0, right = 0;
};
void stem_weights(Stream s, const Tensor& w, const PixelBlocks& layout, StemShift shift, const Tensor& y);
// dw from dy, which is the same the other way round.
void stem_weights_backward(Stream s, const Tensor& dy, const PixelBlocks& layout, StemShift shift, const Tensor& dw);

}  // namespace convolt
