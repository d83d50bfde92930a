#include "picture_ops.h"

#include "augment.h"
#include "exec/block.h"
#include "exec/jpeg_blocks.h"
#include "exec/normals.h"
#include "exec/warp_picture.h"

namespace convolt {
namespace {

constexpr int kOpThreads = 256;  // as many as there are levels

struct OpsShared {
  uint32_t histogram[3][256];
  uint8_t table[3][256];
  uint64_t sum;
  // Here rather than in registers, of which they would take some through all operations.
  uint8_t fill[3];
  uint8_t* kept;
  uint16_t* wide;
  uint64_t key;
  float taps[kMostBlurRadius + 1];
  union {
    float knots[2][kMostKnots * kMostKnots];
    JpegShared jpeg;
  };
};

HD void add_shared(uint32_t* to, uint32_t value) {
#if defined(__CUDA_ARCH__)
  atomicAdd(to, value);
#else
  *to += value;
#endif
}
HD void add_shared(uint64_t* to, uint64_t value) {
#if defined(__CUDA_ARCH__)
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
#else
  *to += value;
#endif
}

// A picture on the way through its programme. It has less than 2^31 bytes.
template <int C>
struct Canvas {
  const Block<kOpThreads>& block;
  OpsShared& s;
  int height, width;
  uint8_t *now, *other;

  HD int pixels() const { return height * width; }
  HD void swap() {
    uint8_t* const was = now;
    now = other;
    other = was;
  }

  // The numbers below `count` of one thread, as first, first + step .. On the CPU one thread has them all: neighbours
  // follow each other.
  template <class F>
  HD void each(int count, F f) const {
#if defined(__CUDA_ARCH__)
    block.phase([&](int t) {
#pragma unroll(C == 1 ? 1 : 4)  // registers
      for (int i = t; i < count; i += kOpThreads) f(i);
    });
#else
    block.phase_of(1, [&](int) {
      if (block.backwards)
        for (int i = count - 1; i >= 0; --i) f(i);
      else
        for (int i = 0; i < count; ++i) f(i);
    });
#endif
  }
  template <class F>
  HD void each_pixel(F f) const {
    each(pixels(), f);
  }
  // f(i, c, x, y) -> the byte in `other`, which then is `now`.
  template <class F>
  HD void each_byte_anew(F f) {
    each_pixel([&](int i) {
      const int y = i / width, x = i - y * width;
      for (int c = 0; c < C; ++c) other[i * C + c] = f(c, x, y);
    });
    swap();
  }

  HD int at(int c, int x, int y) const { return now[(y * width + x) * C + c]; }
  HD float grey(int i) const {
    const uint8_t* const p = now + i * C;
    if constexpr (C == 1) return p[0];
    // luma in integers: a float close to one may come to lie below it.
    return static_cast<float>((2989 * p[0] + 5870 * p[C / 2] + 1140 * p[C - 1]) / 10000);
  }

  // Through s.table.
  HD void apply_table() const {
    each_pixel([&](int i) {
      for (int c = 0; c < C; ++c) {
        uint8_t& v = now[i * C + c];
        v = s.table[c][v];
      }
    });
  }

  // Every byte of channel c by f(c, level) -> level.
  template <class F>
  HD void map_levels(F f) const {
    block.phase([&](int level) {
      for (int c = 0; c < C; ++c) s.table[c][level] = f(c, level);
    });
    apply_table();
  }

  HD void count_levels() const {
    block.phase([&](int level) {
      for (int c = 0; c < C; ++c) s.histogram[c][level] = 0;
    });
    each_pixel([&](int i) {
      for (int c = 0; c < C; ++c) add_shared(&s.histogram[c][now[i * C + c]], 1);
    });
  }

  HD void contrast(float factor) const {
    block.phase_of(1, [&](int) { s.sum = 0; });
#if defined(__CUDA_ARCH__)
    block.phase([&](int t) {
      uint64_t sum = 0;
      for (int i = t; i < pixels(); i += kOpThreads) sum += static_cast<uint64_t>(grey(i));
      add_shared(&s.sum, sum);
    });
#else
    each_pixel([&](int i) { add_shared(&s.sum, static_cast<uint64_t>(grey(i))); });
#endif
    const float mean = static_cast<float>(s.sum) / static_cast<float>(pixels());
    map_levels([&](int, int v) { return level_down(factor * static_cast<float>(v) + (1.F - factor) * mean); });
  }

  HD void saturation(float factor) const {
    if constexpr (C == 3)
      each_pixel([&](int i) {
        const float towards = (1.F - factor) * grey(i);
        for (int c = 0; c < C; ++c) {
          uint8_t& v = now[i * C + c];
          v = level_down(factor * static_cast<float>(v) + towards);
        }
      });
  }

  HD void sharpness(float factor) {
    each_byte_anew([&](int c, int x, int y) {
      const int v = at(c, x, y);
      if (x == 0 || y == 0 || x == width - 1 || y == height - 1) return static_cast<uint8_t>(v);
      int sum = 4 * v;
      for (int j = -1; j <= 1; ++j)
        for (int i = -1; i <= 1; ++i) sum += at(c, x + i, y + j);
      const int smooth = (2 * sum + 13) / 26;
      return level_down(static_cast<float>(v) + (1.F - factor) * static_cast<float>(smooth - v));
    });
  }

  HD void auto_contrast() const {
    count_levels();
    block.phase([&](int level) {
      for (int c = 0; c < C; ++c) {
        int least = 0, most = 255;
        while (s.histogram[c][least] == 0) ++least;
        while (s.histogram[c][most] == 0) --most;
        const int stretched = level <= least ? 0 : (level - least) * 255 / larger(most - least, 1);
        s.table[c][level] = static_cast<uint8_t>(most == least ? level : smaller(stretched, 255));
      }
    });
    apply_table();
  }

  HD void equalize() const {
    count_levels();
    block.phase_of(C, [&](int c) {
      const uint32_t* const counts = s.histogram[c];
      int most = 255;
      while (counts[most] == 0) --most;
      const uint32_t step = (static_cast<uint32_t>(pixels()) - counts[most]) / 255;
      uint32_t sum = step / 2;
      for (int level = 0; level < 256; sum += counts[level], ++level)
        s.table[c][level] = static_cast<uint8_t>(step == 0 ? static_cast<uint32_t>(level) : smaller(sum / step, 255U));
    });
    apply_table();
  }

  // A place beyond the edges, mirrored about the outermost pixels.
  static HD int mirrored(int i, int size) {
    if (size == 1) return 0;
    while (i < 0 || i >= size) i = i < 0 ? -i : 2 * (size - 1) - i;
    return i;
  }
  HD void blur(float deviation, int radius) const {
    block.phase_of(radius + 1, [&](int d) {
      const float x = static_cast<float>(d) / deviation;
      s.taps[d] = expf(-0.5F * x * x);
    });
    float whole = s.taps[0];
    for (int d = 1; d <= radius; ++d) whole += 2.F * s.taps[d];
    const float scale = 1.F / whole;
    each_pixel([&](int i) {
      const int y = i / width, x = i - y * width;
      for (int c = 0; c < C; ++c) {
        float sum = 0;
        for (int d = -radius; d <= radius; ++d)
          sum += s.taps[d < 0 ? -d : d] * static_cast<float>(at(c, mirrored(x + d, width), y));
        s.wide[i * C + c] = static_cast<uint16_t>(sum * scale * 256.F + 0.5F);
      }
    });
    each_pixel([&](int i) {
      const int y = i / width, x = i - y * width;
      for (int c = 0; c < C; ++c) {
        float sum = 0;
        for (int d = -radius; d <= radius; ++d) {
          const int row = mirrored(y + d, height);
          sum += s.taps[d < 0 ? -d : d] * static_cast<float>(s.wide[(row * width + x) * C + c]);
        }
        now[i * C + c] = level_nearest(sum * scale * (1.F / 256));
      }
    });
  }

  HD Philox4 drawn(int counter, PictureOp op) const {
    return philox(s.key, static_cast<uint64_t>(counter), static_cast<uint64_t>(op));
  }

  HD void noise(float deviation) const {
    each_pixel([&](int i) {
      const Floats<3> n = normals(drawn(i, PictureOp::noise));
      for (int c = 0; c < C; ++c) {
        uint8_t& v = now[i * C + c];
        v = level_nearest(static_cast<float>(v) + deviation * n[c]);
      }
    });
  }

  HD void jpeg(int quality) const {
    begin_jpeg(block, s.jpeg, quality);
    for (int top = 0; top < height; top += kMcu)
      for (int left = 0; left < width; left += kMcu) compress_mcu<C>(block, s.jpeg, now, height, width, left, top);
  }

  // from(x, y) -> the place that the pixel with its centre there is taken from.
  template <class F>
  HD void warp(F from) {
    each_pixel([&](int i) {
      const int y = i / width, x = i - y * width;
      const Spot at = from(static_cast<float>(x) + 0.5F, static_cast<float>(y) + 0.5F);
      const Floats<C> v = bilinear<C>(now, height, width, at, s.fill);
      for (int c = 0; c < C; ++c) other[i * C + c] = level_nearest(v[c]);
    });
    swap();
  }

  HD void rotate(float cosine, float sine) {
    const float cx = static_cast<float>(width) * 0.5F, cy = static_cast<float>(height) * 0.5F;
    warp([&](float x, float y) {
      const float dx = x - cx, dy = y - cy;
      return Spot{cx + cosine * dx - sine * dy, cy + sine * dx + cosine * dy};
    });
  }

  HD void perspective(const float* m) {
    warp([&](float x, float y) {
      const float per_w = 1.F / (m[6] * x + m[7] * y + 1.F);
      return Spot{(m[0] * x + m[1] * y + m[2]) * per_w, (m[3] * x + m[4] * y + m[5]) * per_w};
    });
  }

  HD void elastic(float amount, float spacing) {
    each(kMostKnots * kMostKnots, [&](int i) {
      const Philox4 bits = drawn(i, PictureOp::elastic);
      for (int k = 0; k < 2; ++k) s.knots[k][i] = 2.F * uniform(bits.v[k]) - 1.F;
    });
    const float per_spacing = 1.F / spacing;
    warp([&](float x, float y) {
      const float u = (x - 0.5F) * per_spacing, v = (y - 0.5F) * per_spacing;
      const int left = static_cast<int>(u), top = static_cast<int>(v);
      const Floats<4> across = spline_weights(u - static_cast<float>(left));
      const Floats<4> down = spline_weights(v - static_cast<float>(top));
      float moved[2] = {0, 0};
      for (int j = 0; j < 4; ++j)
        for (int i = 0; i < 4; ++i)
          for (int k = 0; k < 2; ++k) moved[k] += across[i] * down[j] * s.knots[k][(top + j) * kMostKnots + left + i];
      return Spot{x + amount * moved[0], y + amount * moved[1]};
    });
  }

  HD void keep() const {
    each(pixels() * C, [&](int i) { s.kept[i] = now[i]; });
  }
  HD void end_chain(float part, bool adds) const {
    each(pixels() * C, [&](int i) {
      const auto share = static_cast<uint16_t>(part * 256.F * static_cast<float>(now[i]) + 0.5F);
      s.wide[i] = adds ? static_cast<uint16_t>(s.wide[i] + share) : share;
      now[i] = s.kept[i];
    });
  }
  HD void mix(float part) const {
    each(pixels() * C, [&](int i) {
      now[i] = level_down(part * static_cast<float>(s.kept[i]) + static_cast<float>(s.wide[i]) * (1.F / 256));
    });
  }

  HD void run(const PictureStep& step, const float* map) {
    const float a = step.a, b = step.b;
    switch (step.op) {
      case PictureOp::brightness:
        return map_levels([&](int, int v) { return level_down(a * static_cast<float>(v)); });
      case PictureOp::contrast:
        return contrast(a);
      case PictureOp::saturation:
        return saturation(a);
      case PictureOp::sharpness:
        return sharpness(a);
      case PictureOp::invert:
        return map_levels([](int, int v) { return static_cast<uint8_t>(255 - v); });
      case PictureOp::solarize:
        return map_levels([&](int, int v) { return static_cast<uint8_t>(static_cast<float>(v) >= a ? 255 - v : v); });
      case PictureOp::solarize_add:
        return map_levels([&](int, int v) {
          const auto level = static_cast<float>(v);
          return level < b ? level_nearest(level + a) : static_cast<uint8_t>(v);
        });
      case PictureOp::posterize:
        return map_levels([&](int, int v) { return static_cast<uint8_t>(v & (0xFF00 >> static_cast<int>(a))); });
      case PictureOp::auto_contrast:
        return auto_contrast();
      case PictureOp::equalize:
        return equalize();
      case PictureOp::blur:
        return blur(a, static_cast<int>(b));
      case PictureOp::noise:
        return noise(a);
      case PictureOp::jpeg:
        return jpeg(static_cast<int>(a));
      case PictureOp::shear_x:
        return warp([&](float x, float y) { return Spot{x + a * y, y}; });
      case PictureOp::shear_y:
        return warp([&](float x, float y) { return Spot{x, y + a * x}; });
      case PictureOp::translate:
        return warp([&](float x, float y) { return Spot{x - a, y - b}; });
      case PictureOp::rotate:
        return rotate(a, b);
      case PictureOp::perspective:
        return perspective(map);
      case PictureOp::elastic:
        return elastic(a, b);
      case PictureOp::keep:
        return keep();
      case PictureOp::end_chain:
        return end_chain(a, b != 0);
      case PictureOp::mix:
        return mix(a);
    }
  }
};

template <int C>
struct RunProgramme {
  static constexpr int kBlocksPerProcessor = blocks_elsewhere(2);
  using Shared = OpsShared;
  const StepInput* input;
  int height, width;
  PictureBuffers buffers;
  uint8_t fill[3];

  HD void operator()(const Block<kOpThreads>& block, Shared& s) const {
    const PictureProgramme& programme = input->records[block.index].programme;
    if (programme.count == 0) return;
    const int64_t size = int64_t{height} * width * C, first = block.index * size;
    uint8_t* const result = buffers.bytes + first;
    block.phase_of(1, [&](int) {
      for (int c = 0; c < C; ++c) s.fill[c] = fill[c];
      s.kept = buffers.kept ? buffers.kept + first : nullptr;
      s.wide = buffers.wide ? buffers.wide + first : nullptr;
      s.key = programme.key;
    });
    Canvas<C> canvas{block, s, height, width, result, buffers.spare + first};
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
    for (int k = 0; k < programme.count; ++k) canvas.run(programme.steps[k], programme.map);
    if (canvas.now != result) canvas.each(static_cast<int>(size), [&](int i) { result[i] = canvas.now[i]; });
  }
};

template <int C>
void run_picture_ops_of(Stream s, const PictureOpsArgs& a) {
  RunProgramme<C> kernel{a.input, a.height, a.width, a.buffers, {}};
  for (int c = 0; c < 3; ++c) kernel.fill[c] = static_cast<uint8_t>(a.fill[c] * 255.F + 0.5F);
  for_each_block<kOpThreads>(s, a.pictures, kernel);
}

}  // namespace

void run_picture_ops(Stream s, const PictureOpsArgs& args) {
  if (args.channels == 1) return run_picture_ops_of<1>(s, args);
  run_picture_ops_of<3>(s, args);
}

}  // namespace convolt
