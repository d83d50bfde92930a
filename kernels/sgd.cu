#include "sgd.h"

#include "exec/block.h"

namespace convolt {
namespace {

constexpr int kPackets = kOptimizerTile / 8;  // of one tile

template <int W>
HD Floats<W> load_as(const void* p, DType dtype, int64_t i) {
  if (dtype == DType::bf16) return load<W>(static_cast<const bf16*>(p) + i);
  if (dtype == DType::f16) return load<W>(static_cast<const f16*>(p) + i);
  return load<W>(static_cast<const float*>(p) + i);
}

template <int W>
HD void store_as(void* p, DType dtype, int64_t i, const Floats<W>& v) {
  if (dtype == DType::bf16) return store(static_cast<bf16*>(p) + i, v);
  if (dtype == DType::f16) return store(static_cast<f16*>(p) + i, v);
  store(static_cast<float*>(p) + i, v);
}

// One packet of one tile of the group's table.
struct SgdStep {
  SgdArgs a;
  HD void operator()(int64_t k) const {
    if (a.status->first_bad_step >= 0 || a.status->skip) return;
    const OptimizerTile tile = a.tiles[k / kPackets];
    const OptimizerTensor& tensor = a.tensors[tile.tensor];
    const int64_t first = tile.first + k % kPackets * 8;
    if (first + 8 <= tensor.elements) {
      update<8>(tensor, first);
    } else {
      for (int64_t i = first; i < tensor.elements; ++i) update<1>(tensor, i);
    }
  }

  template <int W>
  HD void update(const OptimizerTensor& t, int64_t i) const {
    const float rate = a.input->learning_rate[a.group], unscale = 1.F / a.status->loss_scale;
    const float decay = a.weight_decay, momentum = a.momentum, ahead = a.nesterov ? 1.F : 0.F;
    const float kept = a.nesterov ? momentum : 1.F;
    Floats<W> w = load<W>(t.weight + i), v = load<W>(t.moment + i), g = load_as<W>(t.gradient, t.gradient_dtype, i);
    for_lanes<W>([&](int j) {
      g[j] = g[j] * unscale + decay * w[j];
      v[j] = momentum * v[j] + g[j];
      w[j] -= rate * (ahead * g[j] + kept * v[j]);
    });
    store(t.weight + i, w);
    store(t.moment + i, v);
    if (t.copy) store_as(t.copy, t.copy_dtype, i, w);
  }
};

// flags[tile] = 1 where the tile has a gradient that is infinite or NaN, else 0.
struct CheckTile {
  struct Shared {
    int bad[kPackets];
  };
  const OptimizerTensor* tensors;
  const OptimizerTile* tiles;
  int32_t* flags;

  HD void operator()(Block<kPackets> block, Shared& shared) const {
    const OptimizerTile tile = tiles[block.index];
    const OptimizerTensor& tensor = tensors[tile.tensor];
    block.phase([&](int t) {
      const int64_t first = tile.first + t * 8;
      float check = 0;  // 0 * x is NaN for an infinite or NaN x, and then stays NaN
      if (first + 8 <= tensor.elements) {
        const Floats<8> g = load_as<8>(tensor.gradient, tensor.gradient_dtype, first);
        Floats<4> halves;
        for_lanes<4>([&](int j) { halves[j] = 0.F * g[j] + 0.F * g[j + 4]; });
        check = (halves[0] + halves[1]) + (halves[2] + halves[3]);
      } else {
        for (int64_t i = first; i < tensor.elements; ++i)
          check += 0.F * load_as<1>(tensor.gradient, tensor.gradient_dtype, i)[0];
      }
      shared.bad[t] = check != check;
    });
    for (int width = kPackets / 2; width > 0; width /= 2)
      block.phase([&](int t) {
        if (t < width) shared.bad[t] |= shared.bad[t + width];
      });
    block.phase([&](int t) {
      if (t == 0) flags[block.index] = shared.bad[0];
    });
  }
};

struct JoinFlags {
  struct Shared {
    int bad[256];
  };
  const int32_t* flags;
  int64_t count;
  StepStatus* status;

  HD void operator()(Block<256> block, Shared& shared) const {
    block.phase([&](int t) {
      int bad = 0;
      for (int64_t i = t; i < count; i += 256) bad |= flags[i];
      shared.bad[t] = bad;
    });
    for (int width = 128; width > 0; width /= 2)
      block.phase([&](int t) {
        if (t < width) shared.bad[t] |= shared.bad[t + width];
      });
    block.phase([&](int t) {
      if (t == 0 && shared.bad[0]) status->skip = 1;
    });
  }
};

struct UpdateLossScale {
  StepStatus* status;
  HD void operator()(int64_t) const {
    if (status->first_bad_step >= 0) return;
    if (status->skip) {
      status->loss_scale = fmaxf(status->loss_scale / 2, 1.F);
      status->good_steps = 0;
      ++status->skipped_steps;
      status->skip = 0;
    } else if (++status->good_steps == 2000) {
      status->loss_scale = fminf(status->loss_scale * 2, 0x1p24F);
      status->good_steps = 0;
    }
  }
};

}  // namespace

void sgd_step(Stream s, const SgdArgs& args) {
  if (args.group < 0 || args.group >= StepInput::kMaxGroups)
    throw UsageError("sgd_step takes parameter groups 0 to " + std::to_string(StepInput::kMaxGroups - 1) + ", found " +
                     std::to_string(args.group));
  for_each(s, args.tile_count * kPackets, SgdStep{args}, 8);
}

void check_gradients(Stream s, const SgdArgs& args, int32_t* flags, StepStatus* status) {
  for_each_block<kPackets>(s, args.tile_count, CheckTile{args.tensors, args.tiles, flags});
  for_each_block<256>(s, 1, JoinFlags{flags, args.tile_count, status});
}

void update_loss_scale(Stream s, StepStatus* status) { for_each(s, 1, UpdateLossScale{status}); }

}  // namespace convolt
