#include "conv/winograd.h"

#include <algorithm>
#include <limits>
#include <string>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace convolt {
namespace {

using namespace winograd;

// Floats between points and between rows beyond their channels: a power of two apart, all would share a cache set.
constexpr int64_t kSpread = 16;

int64_t divided_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t rounded_up(int64_t bytes) { return divided_up(bytes, 256) * 256; }

// f(i, worker) for i in [0, n), in ranges of equal length; `worker` < threads is another for each thread.
template <class F>
void for_each_range(int64_t n, int threads, F f) {
#ifdef _OPENMP
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < n; ++i) f(i, omp_get_thread_num());
#else
  (void)threads;
  for (int64_t i = 0; i < n; ++i) f(i, 0);
#endif
}

// A batch of NHWC pictures, cut into tiles of what is written.
struct Pictures {
  int64_t n, height, width, channels;
};
struct Tiling {
  int64_t n, rows, columns;
  int tile;
  static Tiling of(const Pictures& p, int tile) {
    return {p.n, divided_up(p.height, tile), divided_up(p.width, tile), tile};
  }
  int64_t count() const { return n * rows * columns; }
};

// Goes from tile to tile without dividing.
class Walk {
public:
  Walk(const Tiling& tiling, int64_t first)
      : tiling_(tiling),
        n_(first / (tiling.rows * tiling.columns)),
        row_(first / tiling.columns % tiling.rows),
        column_(first % tiling.columns) {}
  void next() {
    if (++column_ < tiling_.columns) return;
    column_ = 0;
    if (++row_ < tiling_.rows) return;
    row_ = 0;
    ++n_;
  }
  // The tile's pixels, `side` x `side`, beginning `top` above and `left` before its corner.
  Window window(const void* data, const Pictures& p, int64_t pixel_bytes, int side, int64_t top, int64_t left) const {
    const int64_t y = tiling_.tile * row_ - top, x = tiling_.tile * column_ - left;
    const auto first = [](int64_t at) { return static_cast<int>(std::max<int64_t>(0, -at)); };
    const auto end = [&](int64_t at, int64_t extent) { return static_cast<int>(std::min<int64_t>(side, extent - at)); };
    return {.data = static_cast<char*>(const_cast<void*>(data)),
            .offset = ((n_ * p.height + y) * p.width + x) * pixel_bytes,
            .row = p.width * pixel_bytes,
            .pixel = pixel_bytes,
            .first_row = first(y),
            .end_row = end(y, p.height),
            .first_column = first(x),
            .end_column = end(x, p.width)};
  }

private:
  const Tiling& tiling_;
  int64_t n_, row_, column_;
};

// `count` rows in products of equal size: f(first, rows).
template <class F>
void for_each_product(int64_t count, int most_rows, F f) {
  const int64_t products = divided_up(count, most_rows);
  for (int64_t i = 0; i < products; ++i) {
    const int64_t first = i * count / products;
    f(first, static_cast<int>((i + 1) * count / products - first));
  }
}

// What a pass writes, or what it sums over: the outputs, or of dgrad the inputs.
Pictures tiled(const ConvDesc& d) {
  const ConvGeometry& g = d.geometry;
  if (d.pass == ConvPass::dgrad) return {g.n, g.in_h, g.in_w, g.in_c};
  return {g.n, g.out_h(), g.out_w(), g.out_c};
}
// Of one channel with one.
int64_t products(const ConvDesc& d, int tile) {
  return int64_t{tile + 2} * (tile + 2) * Tiling::of(tiled(d), tile).count();
}

// The larger the tile the fewer products, 4, 2.8 and 2.3 for a sum of nine, but for what lies outside the picture; and
// the larger the sums its points are. The errors of tiles of 4, several times those of a plain sum in f32, vanish only
// in the rounding to 16 bits (docs/numerics.md).
int tile_of(const ConvDesc& d) {
  int best = 2;
  for (int tile = 3; tile <= (d.dtype == DType::f32 ? 3 : 4); ++tile)
    if (products(d, tile) < products(d, best)) best = tile;
  return best;
}

class WinogradKernel : public ConvKernel {
public:
  WinogradKernel(const ConvDesc& desc, int threads, const Code& code)
      : desc_(desc), threads_(threads), code_(code), transforms_(code.transforms[tile_of(desc) - 2]) {}
  std::string name() const override {
    const std::string m = std::to_string(transforms_.tile);
    return "winograd F(" + m + "x" + m + ",3x3) " + code_.name;
  }
  bool widened() const override { return desc_.dtype != DType::f32; }

protected:
  int64_t point_count() const { return transforms_.points(); }
  int64_t point_bytes() const { return point_count() * 4; }  // of a tile's channel
  int64_t pixel_bytes(const Pictures& p) const { return p.channels * size_of(desc_.dtype); }
  Channels channels(int64_t count) const { return {desc_.dtype, static_cast<int>(count)}; }
  // The taps of output channel k from input channel c on.
  Window taps(const void* weights, int64_t k, int64_t c) const {
    const int64_t element = size_of(desc_.dtype), tap = desc_.geometry.in_c * element;
    return {.data = static_cast<char*>(const_cast<void*>(weights)),
            .offset = k * 9 * tap + c * element,
            .row = 3 * tap,
            .pixel = tap,
            .end_row = 3,
            .end_column = 3};
  }
  // The same turned by half a circle.
  Window turned_taps(const void* weights, int64_t k, int64_t c) const {
    Window w = taps(weights, k, c);
    w.offset += 8 * w.pixel;
    w.row = -w.row;
    w.pixel = -w.pixel;
    return w;
  }

  ConvDesc desc_;
  int threads_;
  const Code& code_;
  const Transforms& transforms_;
};

// fprop, and dgrad as a correlation with the weights turned by half a circle.
class Correlation final : public WinogradKernel {
public:
  Correlation(const ConvDesc& desc, int threads, const Code& code) : WinogradKernel(desc, threads, code) {
    const ConvGeometry& g = desc.geometry;
    const Pictures x{g.n, g.in_h, g.in_w, g.in_c}, y{g.n, g.out_h(), g.out_w(), g.out_c};
    const bool forward = desc.pass == ConvPass::fprop;
    in_ = forward ? x : y;
    out_ = forward ? y : x;
    top_ = forward ? g.pad.top : 2 - g.pad.top;
    left_ = forward ? g.pad.left : 2 - g.pad.left;
    tiling_ = Tiling::of(out_, transforms_.tile);
    panel_ = code.panel(static_cast<int>(out_.channels));
    // A block's transformed tiles are read once for each panel, and all weights once for each block: both from the
    // second-level cache while there are few channels.
    constexpr int64_t kBlockBytes = 384 << 10;
    const int64_t most = std::clamp<int64_t>(kBlockBytes / (point_bytes() * in_.channels), 32, 96);
    blocks_ = divided_up(divided_up(tiling_.count(), most), threads) * threads;
    tiles_ = divided_up(tiling_.count(), blocks_);
  }

  int64_t workspace_bytes() const override { return threads_ * worker_bytes(); }
  int64_t packed_bytes() const override { return point_bytes() * in_.channels * out_.channels; }
  std::string packed_format() const override {
    return std::string("winograd ") + (desc_.pass == ConvPass::fprop ? "fprop " : "dgrad ") + std::to_string(panel_);
  }

  // [panel][point][in][column of the panel]
  void pack(Stream, const void* plain, void* packed) const override {
    auto* to = static_cast<float*>(packed);
    if (desc_.pass == ConvPass::fprop)
      for_each_range(out_.channels / panel_, threads_, [&](int64_t i, int) { pack_transposed(plain, i, to); });
    else
      for_each_range(in_.channels, threads_, [&](int64_t k, int) {
        transforms_.weights(channels(out_.channels), turned_taps(plain, k, 0),
                            {to + k * panel_, in_.channels * panel_, panel_, point_count() * in_.channels * panel_});
      });
  }

  void run(Stream, const ConvArgs& args) const override {
    for_each_range(blocks_, threads_, [&](int64_t block, int worker) { run_block(args, block, worker); });
  }

private:
  // [point][16 channels][tile][channel], and [point][tile][column].
  int64_t points_stride() const { return tiles_ * in_.channels + kSpread; }
  int64_t sums_stride() const { return tiles_ * panel_ + kSpread; }
  int64_t worker_bytes() const { return rounded_up(point_count() * (points_stride() + sums_stride()) * 4); }

  // The weights' channels are the sums' index here: they are transformed in vectors and then turned.
  void pack_transposed(const void* plain, int64_t panel, float* packed) const {
    float transformed[32][kMostPoints][kChannels];
    float* const to = packed + panel * point_count() * in_.channels * panel_;
    for (int64_t c0 = 0; c0 < in_.channels; c0 += kChannels) {
      for (int j = 0; j < panel_; ++j)
        transforms_.weights(channels(kChannels), taps(plain, panel * panel_ + j, c0), {transformed[j][0], kChannels});
      for (int64_t p = 0; p < point_count(); ++p)
        for (int64_t c = 0; c < kChannels; ++c) {
          float* const row = to + (p * in_.channels + c0 + c) * panel_;
          for (int j = 0; j < panel_; ++j) row[j] = transformed[j][p][c];
        }
    }
  }

  void run_block(const ConvArgs& args, int64_t block, int worker) const {
    const int64_t first = block * tiles_, count = std::min(tiles_, tiling_.count() - first);
    if (count <= 0) return;
    auto* const points = reinterpret_cast<float*>(static_cast<char*>(args.workspace) + worker * worker_bytes());
    float* const sums = points + point_count() * points_stride();
    transform(args, first, count, points);
    const auto* packed = static_cast<const float*>(args.w);
    for (int64_t c = 0; c < out_.channels; c += panel_) {
      for (int64_t p = 0; p < point_count(); ++p, packed += in_.channels * panel_)
        multiply(points, p, count, packed, sums);
      finish(args, first, count, c, sums);
    }
  }

  void transform(const ConvArgs& args, int64_t first, int64_t count, float* points) const {
    const void* const data = desc_.pass == ConvPass::fprop ? args.x : args.y;
    Walk walk(tiling_, first);
    for (int64_t t = 0; t < count; ++t, walk.next())
      transforms_.pixels(channels(in_.channels),
                         walk.window(data, in_, pixel_bytes(in_), transforms_.side(), top_, left_),
                         {points + t * kChannels, points_stride(), kChannels, tiles_ * kChannels});
  }

  void multiply(const float* points, int64_t p, int64_t count, const float* packed, float* sums) const {
    Product product{
        .left_jump = tiles_ * kChannels, .right = packed, .sums_row = panel_, .depth = static_cast<int>(in_.channels)};
    for_each_product(count, code_.most_rows, [&](int64_t first, int rows) {
      product.left = points + p * points_stride() + first * kChannels;
      product.sums = sums + p * sums_stride() + first * panel_;
      code_.multiply_strided(product, rows, panel_);
    });
  }

  // Output channels [c, c + panel).
  void finish(const ConvArgs& args, int64_t first, int64_t count, int64_t c, const float* sums) const {
    Finish finish;
    if (desc_.epilogue != ConvEpilogue::none) finish.bias = args.bias + c;
    finish.clamps = desc_.epilogue == ConvEpilogue::bias_relu || desc_.epilogue == ConvEpilogue::bias_relu6;
    finish.high = desc_.epilogue == ConvEpilogue::bias_relu6 ? 6 : std::numeric_limits<float>::infinity();
    char* const data = static_cast<char*>(desc_.pass == ConvPass::fprop ? args.y : args.x) + c * size_of(desc_.dtype);
    Walk walk(tiling_, first);
    for (int64_t t = 0; t < count; ++t, walk.next())
      transforms_.output(channels(panel_), sums + t * panel_, sums_stride(),
                         walk.window(data, out_, pixel_bytes(out_), transforms_.tile, 0, 0), finish);
  }

  Pictures in_{}, out_{};
  int64_t top_ = 0, left_ = 0;
  Tiling tiling_{};
  int panel_ = kChannels;
  int64_t blocks_ = 0, tiles_ = 0;
};

class WeightGradient final : public WinogradKernel {
public:
  WeightGradient(const ConvDesc& desc, int threads, const Code& code) : WinogradKernel(desc, threads, code) {
    const ConvGeometry& g = desc.geometry;
    x_ = {g.n, g.in_h, g.in_w, g.in_c};
    y_ = {g.n, g.out_h(), g.out_w(), g.out_c};
    tiling_ = Tiling::of(y_, transforms_.tile);
    panel_ = code.panel(static_cast<int>(g.in_c));
    // Threads share the tiles and add their sums at the end; where those are large beside the tiles, they share the
    // output channels instead.
    const int64_t vectors = g.out_c / kChannels;
    by_channels_ = threads > 1 && vectors % threads == 0 && g.in_c * g.out_c * threads > 16 * tiling_.count();
    columns_ = by_channels_ ? g.out_c / threads : g.out_c;
    const int64_t share = by_channels_ ? tiling_.count() : divided_up(tiling_.count(), threads);
    constexpr int64_t kBlockBytes = 512 << 10;
    tiles_ = std::clamp<int64_t>(kBlockBytes / (point_bytes() * (g.in_c + columns_)), 96, 256);
    tiles_ = divided_up(share, divided_up(share, tiles_));
  }

  int64_t workspace_bytes() const override { return threads_ * worker_bytes(); }

  void run(Stream, const ConvArgs& args) const override {
    for_each_range(threads_, threads_, [&](int64_t worker, int) { sum_share(args, worker); });
    for_each_range(y_.channels, threads_, [&](int64_t k, int) { finish(args, k); });
  }

private:
  // [point][panel of x][tile][column], [point][tile][output channel], and [point][output channel][input channel].
  int64_t pixels_stride() const { return tiles_ * x_.channels + kSpread; }
  int64_t gradients_row() const { return columns_ + kSpread; }
  int64_t gradients_stride() const { return tiles_ * gradients_row() + kSpread; }
  int64_t sums_stride() const { return columns_ * x_.channels + kSpread; }
  int64_t worker_bytes() const {
    return rounded_up(point_count() * (pixels_stride() + gradients_stride() + sums_stride()) * 4);
  }
  float* sums_of(const ConvArgs& args, int64_t worker) const {
    return reinterpret_cast<float*>(static_cast<char*>(args.workspace) + worker * worker_bytes());
  }

  void sum_share(const ConvArgs& args, int64_t worker) const {
    const int64_t all = tiling_.count();
    const int64_t begin = by_channels_ ? 0 : worker * all / threads_;
    const int64_t end = by_channels_ ? all : (worker + 1) * all / threads_;
    const int64_t k = by_channels_ ? worker * columns_ : 0;
    float* const sums = sums_of(args, worker);
    if (begin == end) std::fill_n(sums, point_count() * sums_stride(), 0.F);
    for (int64_t first = begin; first < end; first += tiles_)
      sum_block(args, first, std::min(tiles_, end - first), k, first > begin, sums);
  }

  void sum_block(const ConvArgs& args, int64_t first, int64_t count, int64_t k, bool adds, float* sums) const {
    float* const pixels = sums + point_count() * sums_stride();
    float* const gradients = pixels + point_count() * pixels_stride();
    transform(args, first, count, k, pixels, gradients);
    for (int64_t p = 0; p < point_count(); ++p)
      for (int64_t c = 0; c < x_.channels; c += panel_) {
        Product product{.left_run = static_cast<int>(count),
                        .left_step = gradients_row(),
                        .right = pixels + p * pixels_stride() + c * tiles_,
                        .sums_row = x_.channels,
                        .depth = static_cast<int>(count),
                        .adds = adds};
        for_each_product(columns_, code_.most_rows, [&](int64_t row, int rows) {
          product.left = gradients + p * gradients_stride() + row;
          product.sums = sums + p * sums_stride() + row * x_.channels + c;
          code_.multiply_adjacent(product, rows, panel_);
        });
      }
  }

  // The output channels from k on.
  void transform(const ConvArgs& args, int64_t first, int64_t count, int64_t k, float* pixels, float* gradients) const {
    const auto* const dy = static_cast<const char*>(args.y) + k * size_of(desc_.dtype);
    const Padding& pad = desc_.geometry.pad;
    Walk walk(tiling_, first);
    for (int64_t t = 0; t < count; ++t, walk.next()) {
      transforms_.pixels(channels(x_.channels),
                         walk.window(args.x, x_, pixel_bytes(x_), transforms_.side(), pad.top, pad.left),
                         {pixels + t * panel_, pixels_stride(), panel_, tiles_ * panel_});
      const auto columns = static_cast<int>(columns_);
      transforms_.gradients(channels(columns_), walk.window(dy, y_, pixel_bytes(y_), transforms_.tile, 0, 0),
                            {gradients + t * gradients_row(), gradients_stride(), columns, columns});
    }
  }

  void finish(const ConvArgs& args, int64_t k) const {
    const int64_t row = k % columns_ * x_.channels, stride = sums_stride();
    float* const sums = sums_of(args, by_channels_ ? k / columns_ : 0) + row;
    for (int worker = 1; worker < (by_channels_ ? 1 : threads_); ++worker) {
      const float* const more = sums_of(args, worker) + row;
      for (int64_t p = 0; p < point_count(); ++p)
        for (int64_t c = 0; c < x_.channels; ++c) sums[p * stride + c] += more[p * stride + c];
    }
    const auto columns = static_cast<int>(x_.channels);
    transforms_.weight_gradient(channels(x_.channels), {sums, stride, columns, columns}, taps(args.w, k, 0));
  }

  Pictures x_{}, y_{};
  Tiling tiling_{};
  int panel_ = kChannels;
  bool by_channels_ = false;
  int64_t columns_ = 0, tiles_ = 0;
};

// With fewer products than two thirds of the plain sum's the transforms are outweighed.
bool gains(const ConvDesc& d) {
  const Pictures p = tiled(d);
  return 2 * 9 * p.n * p.height * p.width >= 3 * products(d, tile_of(d));
}

bool fits_winograd(const ConvDesc& d) {
  const ConvGeometry& g = d.geometry;
  const bool known =
      d.epilogue == ConvEpilogue::none ||
      (d.pass == ConvPass::fprop && (d.epilogue == ConvEpilogue::bias || d.epilogue == ConvEpilogue::bias_relu ||
                                     d.epilogue == ConvEpilogue::bias_relu6));
  return known && d.prologue == ConvPrologue::none && g.kernel_h == 3 && g.kernel_w == 3 && g.stride_h == 1 &&
         g.stride_w == 1 && g.dilation_h == 1 && g.dilation_w == 1 && g.groups == 1 && g.in_c % kChannels == 0 &&
         g.out_c % kChannels == 0 && gains(d);
}

}  // namespace

// With products of pairs (AVX-512 BF16) the library does twice as many a second as with floats, with tiles of them
// (AMX) many times as many.
bool winograd_is_quicker(const ConvDesc& desc, const std::string& library) {
  const ConvGeometry& g = desc.geometry;
  if (library.find("amx") != std::string::npos) return false;
  const bool pairs = library.find("bf16") != std::string::npos;
  const int64_t channels = std::min(g.in_c, g.out_c);
  if (desc.pass == ConvPass::wgrad) return channels >= 32;
  if (!pairs) return true;
  // The points of the weights are made for each step: it takes many tiles to outweigh that.
  constexpr int64_t kManyTiles = 128;
  return channels >= 64 && g.n * divided_up(g.out_h(), 4) * divided_up(g.out_w(), 4) >= kManyTiles;
}

const Code& winograd_code() { return __builtin_cpu_supports("avx512f") ? kAvx512 : kAvx2; }

std::unique_ptr<ConvKernel> make_winograd(const ConvDesc& desc, int threads, const Code& code) {
  if (!fits_winograd(desc)) return nullptr;
  if (desc.pass == ConvPass::wgrad) return std::make_unique<WeightGradient>(desc, threads, code);
  return std::make_unique<Correlation>(desc, threads, code);
}

}  // namespace convolt
