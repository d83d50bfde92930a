// The end of a residual block in one sweep each way: both branches' batch norms, the addition and the ReLU; on the way
// back the join of the gradients, the ReLU's gate from stored bits and the sums for both batch norms, then both
// gradients.
#include "block_end.h"

#include <algorithm>

#include "graph/lower.h"
#include "graph/passes/fusion.h"

namespace convolt {
namespace {

BnAttrs& bn(Op& op) { return std::get<BnAttrs>(op.attrs); }
bool is_plain_or_relu(const Act& act) { return act.kind == Activation::none || act.kind == Activation::relu; }

// bn_apply(x, residual = bn_apply(r)) reads r itself.
void fuse_branches(Program& p) {
  PassReport report(p, "block_end", "projections normalised where they are added");
  for (size_t i = 0; i < p.step.size(); ++i) {
    if (p.step[i].def != &ops::bn_apply || p.step[i].in[2] == kNoValue) continue;
    const Uses uses(p);
    Op& end = p.step[i];
    Op* const branch = uses.writer(end.in[2]);
    if (branch == nullptr || branch->def != &ops::bn_apply || branch->in[2] != kNoValue ||
        uses.readers(end.in[2]).size() != 1 || bn(*branch).act.kind != Activation::none ||
        !is_plain_or_relu(bn(end).act))
      continue;
    end.in[2] = branch->in[0];
    end.in.push_back(branch->in[1]);
    end.note += " of batch norm";
    *branch = {};
    report.applied();
  }
  remove_emptied(p);
}

// The coefficients of both branches in one launch, where both come from convolutions' epilogues.
void fuse_finalizes(Program& p) {
  PassReport report(p, "block_end", "pairs of batch norms finalized together");
  for (size_t i = 0; i < p.step.size(); ++i) {
    if (p.step[i].def != &ops::bn_apply || p.step[i].in.size() < 4 || p.step[i].in[3] == kNoValue) continue;
    const Uses uses(p);
    Op *first = uses.writer(p.step[i].in[1]), *second = uses.writer(p.step[i].in[3]);
    if (first > second) std::swap(first, second);
    const auto alone = [](const Op* op) {
      if (op == nullptr || op->def != &ops::bn_finalize) return false;
      const BnAttrs& a = std::get<BnAttrs>(op->attrs);
      return a.raw_sums && !a.low;
    };
    if (!alone(first) || !alone(second)) continue;
    const BnAttrs &a = bn(*first), &b = bn(*second);
    // Nobody may want the first before the second is known.
    const bool early = uses.readers(first->out[0])[0] < second;
    if (early || a.eps != b.eps || a.momentum != b.momentum || a.rows != b.rows) continue;
    second->def = &ops::bn_finalize_pair;
    second->in.insert(second->in.begin(), first->in.begin(), first->in.end());
    second->out.insert(second->out.begin(), first->out[0]);
    second->note = "and " + first->layer;
    *first = {};
    report.applied();
  }
  remove_emptied(p);
}

// Everything that one join replaces.
struct Arrival {
  Op *sum = nullptr, *spread = nullptr, *reduce = nullptr, *apply = nullptr;
};

// The ops that a gradient meets at the end of a block, if a join gains anything there.
Arrival arrival(const Program& p, const Uses& uses, Op& reduce) {
  const ValueId dy = reduce.in[0];
  Arrival a{.reduce = &reduce};
  for (Op* op : uses.readers(dy))
    if (op->def == &ops::bn_backward_apply && op->in[0] == dy && op->in[1] == reduce.in[1]) a.apply = op;
  Op* const writer = uses.writer(dy);
  if (writer != nullptr && writer->def == &ops::add && writer->in[0] != writer->in[1]) a.sum = writer;
  if (writer != nullptr && writer->def == &ops::global_avg_pool_backward && uses.readers(dy).size() == 2)
    a.spread = writer;
  const bool gated = reduce.in[3] != kNoValue, relu = bn(reduce).act.kind == Activation::relu;
  if (a.apply == nullptr || bn(reduce).frozen || gated != relu || !is_plain_or_relu(bn(reduce).act)) return {};
  // A gated gradient replaces the ungated one: nobody else may want that. An ungated one gains only by the addition.
  if (relu && uses.readers(dy).size() != 2) return {};
  if (!relu && a.sum == nullptr && a.spread == nullptr) return {};
  return dy == p.logits ? Arrival{} : a;
}

// The bits of the ReLU that wrote y, in place of y.
void use_mask(Program& p, const Uses& uses, Op& join, ValueId y) {
  const Shape shape = p[y].shape;
  Op* const end = uses.writer(y);
  bn(join).gate = Gate::output;
  if (end == nullptr || end->def != &ops::bn_apply || shape[-1] % 8 != 0) return;
  if (end->out.size() == 1) {
    bn(*end).mask = true;
    end->in.resize(4, kNoValue);
    end->out.push_back(p.add({.name = end->layer + ".mask", .dtype = DType::u8, .shape = {shape.elements() / 8}}));
  }
  join.in[4] = end->out[1];
  bn(join).gate = Gate::mask;
}

void replace(Program& p, ValueId from, ValueId to) {
  for (Op& op : p.step) std::replace(op.in.begin(), op.in.end(), from, to);
}

void join(Program& p, const Uses& uses, const Arrival& a) {
  Op made{.def = &ops::bn_backward_join,
          .in = {a.reduce->in[0], kNoValue, a.reduce->in[1], a.reduce->in[2], a.reduce->in[3], kNoValue, kNoValue},
          .attrs = a.reduce->attrs,
          .layer = a.reduce->layer};
  const ValueInfo x = p[made.in[2]];
  const ValueId dy = made.in[0];
  if (a.sum != nullptr) {
    made.in[0] = a.sum->in[0];
    made.in[1] = a.sum->in[1];
    made.note = "joins two gradients";
  }
  if (a.spread != nullptr) {
    made.in[0] = a.spread->in[0];
    bn(made).spread = x.shape.elements() / (x.shape[0] * x.shape[-1]);
    made.note = "spreads the gradient of the mean";
  }
  if (made.in[4] != kNoValue) use_mask(p, uses, made, made.in[4]);
  const ValueId dz = p.add({.name = a.reduce->layer + ".dz", .dtype = x.dtype, .shape = x.shape});
  made.out = {dz, a.reduce->out[0], a.reduce->out[1]};
  const ValueId residual = a.apply->out.size() > 1 ? a.apply->out[1] : kNoValue;
  a.apply->in = {dz, a.apply->in[1], a.apply->in[2], kNoValue, a.apply->in[4], a.apply->in[5]};
  a.apply->out.resize(1);
  bn(*a.apply).act = Activation::none;
  bn(*a.apply).residual_gradient = false;
  for (Op* op : {a.sum, a.spread})
    if (op != nullptr) *op = {};
  const ValueId arrived = made.in[0];
  *a.reduce = std::move(made);
  replace(p, dy, dz);
  a.reduce->in[0] = arrived;
  if (residual != kNoValue) replace(p, residual, dz);
}

void fuse_joins(Program& p) {
  PassReport report(p, "block_end", "gradients joined, gated and summed in one sweep");
  for (size_t i = 0; i < p.step.size(); ++i) {
    if (p.step[i].def != &ops::bn_backward_reduce) continue;
    const Uses uses(p);
    const Arrival a = arrival(p, uses, p.step[i]);
    if (a.reduce == nullptr) continue;
    join(p, uses, a);
    report.applied();
  }
  remove_emptied(p);
}

// A second batch norm of the same dz: its sums in the join, its gradient beside the first one's.
void fuse_pairs(Program& p) {
  PassReport report(p, "block_end", "pairs of batch norms with one gradient");
  for (size_t i = 0; i < p.step.size(); ++i) {
    if (p.step[i].def != &ops::bn_backward_join) continue;
    const Uses uses(p);
    Op& joined = p.step[i];
    const ValueId dz = joined.out[0];
    Op *first = nullptr, *reduce = nullptr, *second = nullptr;
    for (Op* op : uses.readers(dz)) {
      if (op->in[0] != dz) continue;
      if (op->def == &ops::bn_backward_reduce && bn(*op).act.kind == Activation::none && !bn(*op).frozen) reduce = op;
      if (op->def == &ops::bn_backward_apply) (op->in[1] == joined.in[2] ? first : second) = op;
    }
    if (first == nullptr || reduce == nullptr || second == nullptr || second->in[1] != reduce->in[1] ||
        second->out.size() != 1)
      continue;
    joined.in[5] = reduce->in[1];
    joined.in[6] = reduce->in[2];
    joined.out.insert(joined.out.end(), reduce->out.begin(), reduce->out.end());
    Op pair{.def = &ops::bn_backward_pair,
            .in = {dz, first->in[1], first->in[2], first->in[4], first->in[5], second->in[1], second->in[2],
                   second->in[4], second->in[5]},
            .out = {first->out[0], second->out[0]},
            .attrs = first->attrs,
            .layer = first->layer,
            .note = "and " + second->layer};
    *first = std::move(pair);
    *reduce = {};
    *second = {};
    report.applied();
  }
  remove_emptied(p);
}

// The gradient of a convolution of single pixels with a stride of 2, where a join is all that reads it: of the pixels
// that have one alone, so that zeros are neither written nor read.
void thin_projections(Program& p) {
  PassReport report(p, "block_end", "gradients of projections without the zeros between their pixels");
  const Uses uses(p);
  for (Op& join : p.step) {
    if (join.def != &ops::bn_backward_join || join.in[1] == kNoValue) continue;
    for (const size_t k : {size_t{1}, size_t{0}}) {
      Op* const dgrad = uses.writer(join.in[k]);
      if (dgrad == nullptr || dgrad->def != &ops::conv_dgrad || uses.readers(join.in[k]).size() != 1) continue;
      ConvDesc& desc = std::get<ConvAttrs>(dgrad->attrs).desc;
      ConvGeometry& g = desc.geometry;
      const bool projects = g.kernel_h == 1 && g.kernel_w == 1 && g.stride_h == 2 && g.stride_w == 2 &&
                            g.pad == Padding() && desc.epilogue == ConvEpilogue::none;
      if (!projects) continue;
      const int64_t h = g.out_h(), w = g.out_w();
      g.in_h = h;
      g.in_w = w;
      g.stride_h = g.stride_w = 1;
      std::swap(join.in[k], join.in[1]);
      p[join.in[1]].shape = g.x_shape();
      join.note += ", one of every second pixel";
      report.applied();
      break;
    }
  }
}

// The last block's output, of which only the mean of each picture is wanted.
void fuse_means(Program& p) {
  PassReport report(p, "block_end", "means of pictures that are not stored");
  for (size_t i = 0; i < p.step.size(); ++i) {
    if (p.step[i].def != &ops::global_avg_pool) continue;
    const Uses uses(p);
    Op& mean = p.step[i];
    Op* const end = uses.writer(mean.in[0]);
    if (end == nullptr || end->def != &ops::bn_apply || end->in[2] == kNoValue || !is_plain_or_relu(bn(*end).act) ||
        uses.readers(mean.in[0]).size() != 1)
      continue;
    const Shape& x = p[mean.in[0]].shape;
    bn(*end).mean = x[1] * x[2];
    end->def = &ops::bn_apply_mean;
    end->out[0] = mean.out[0];
    end->note += " + mean";
    mean = {};
    report.applied();
  }
  remove_emptied(p);
}

}  // namespace

void fuse_block_ends(Program& p) {
  fuse_branches(p);
  fuse_finalizes(p);
  fuse_joins(p);
  fuse_pairs(p);
  thin_projections(p);
  fuse_means(p);
}

}  // namespace convolt
