// Scale-bias, addition of the residual and activation in one sweep; bias and activation into the convolution or linear
// layer; max pools before activations. Runs on forward ops, before the gradient is built: the fused op has a gradient
// rule of its own.
#include <algorithm>

#include "graph/lower.h"
#include "graph/op.h"
#include "graph/passes/fusion.h"

namespace convolt {
namespace {

class Fuser {
public:
  Fuser(Program& program, ConvProvider& provider, bool training)
      : p_(program), provider_(provider), training_(training) {}

  void run() {
    for (size_t i = 0; training_ && i < p_.step.size(); ++i)
      if (p_.step[i].def == &ops::max_pool) pool_first(i);
    for (size_t i = 0; i < p_.step.size(); ++i) {
      // Copies: the rewrites below change the list.
      const Op op = p_.step[i];
      if (op.def == &ops::add) fuse_residual(i);
      if (op.def == &ops::activation) fuse_activation(i);
      if (op.def == &ops::add_bias) fuse_bias(i);
    }
    std::erase_if(p_.step, [](const Op& op) { return op.def == nullptr; });
    log(residuals_, "residual additions into batch norms");
    log(activations_, "activations into the op before");
    log(pools_, "max pools before the activation");
  }

private:
  void log(int n, const char* what) const {
    if (n > 0) p_.pass_log.push_back("fuse: " + std::to_string(n) + " " + what);
  }
  int readers(ValueId v) const {
    int n = v == p_.logits ? 1 : 0;
    for (const Op& op : p_.step) n += static_cast<int>(std::count(op.in.begin(), op.in.end(), v));
    return n;
  }
  // Index of the op that writes v, if nothing but the asking op reads it; -1 otherwise.
  int sole_writer(ValueId v) const {
    if (readers(v) != 1) return -1;
    for (size_t i = 0; i < p_.step.size(); ++i)
      if (p_.step[i].def != nullptr && !p_.step[i].out.empty() && p_.step[i].out[0] == v) return static_cast<int>(i);
    return -1;
  }

  // max_pool(act(x)) -> act(max_pool(x)), bit for bit for what rises or stays: the activation and its gradient then
  // sweep through a quarter of the elements, and x need not be kept. Where windows tie only after the activation, its
  // gradient is 0. Behind a batch norm the activation is part of a sweep that is made anyway.
  void pool_first(size_t i) {
    const Op pool = p_.step[i];
    const int w = sole_writer(pool.in[0]);
    if (w < 0 || p_.step[static_cast<size_t>(w)].def != &ops::activation) return;
    const Op act = p_.step[static_cast<size_t>(w)];
    const Activation kind = std::get<ActAttrs>(act.attrs).act.kind;
    if (kind != Activation::relu && kind != Activation::relu6) return;
    const int before = sole_writer(act.in[0]);
    if (before >= 0 && p_.step[static_cast<size_t>(before)].def == &ops::bn_apply) return;
    Op first = pool, second = act;
    const ValueInfo& out = p_[pool.out[0]];
    first.in[0] = act.in[0];
    first.out[0] = p_.add({.name = out.name + ".raw", .dtype = out.dtype, .shape = out.shape});
    first.note = "before " + std::string(name_of(kind));
    second.in[0] = first.out[0];
    second.out[0] = pool.out[0];
    p_.step[static_cast<size_t>(w)] = first;
    p_.step[i] = second;
    ++pools_;
  }

  // bn_apply(x) + residual -> bn_apply(x, residual), where the addition stood (the residual is known only there).
  void fuse_residual(size_t i) {
    const Op add = p_.step[i];
    for (size_t side : {size_t{1}, size_t{0}}) {
      const int w = add.in[0] == add.in[1] ? -1 : sole_writer(add.in[side]);
      if (w < 0) continue;
      Op bn = p_.step[static_cast<size_t>(w)];
      if (bn.def != &ops::bn_apply || bn.in[2] != kNoValue || std::get<BnAttrs>(bn.attrs).act.kind != Activation::none)
        continue;
      bn.in[2] = add.in[1 - side];
      bn.out = add.out;
      bn.note = "+ residual";
      p_.step[i] = bn;
      p_.step[static_cast<size_t>(w)] = {};
      ++residuals_;
      return;
    }
  }

  // act(bn_apply(...)) -> bn_apply with activation; relu or relu6 of (conv + bias) or (linear + bias) -> the epilogue
  // where the provider offers it.
  void fuse_activation(size_t i) {
    const Op act = p_.step[i];
    const int w = sole_writer(act.in[0]);
    if (w < 0) return;
    Op before = p_.step[static_cast<size_t>(w)];
    const Act a = std::get<ActAttrs>(act.attrs).act;
    if (before.def == &ops::bn_apply && std::get<BnAttrs>(before.attrs).act.kind == Activation::none) {
      // The gradient after a residual knows the stored output alone.
      if (training_ && before.in[2] != kNoValue && !gradient_from_output(a)) return;
      std::get<BnAttrs>(before.attrs).act = a;
    } else if (before.def == &ops::conv_fprop) {
      if (why_not(std::get<ConvAttrs>(before.attrs).desc, a.kind) != nullptr) return;
    } else if (before.def == &ops::linear_fprop) {
      if (const char* why = why_not(std::get<LinearAttrs>(before.attrs).desc, a.kind); why != nullptr)
        return linear_.refused(why, before.layer);
      linear_.applied();
    } else {
      return;
    }
    before.out = act.out;
    before.note += " + " + std::string(name_of(a.kind));
    p_.step[i] = before;
    p_.step[static_cast<size_t>(w)] = {};
    if (before.def != &ops::linear_fprop) ++activations_;
  }

  // Makes the activation part of the epilogue; else the reason.
  template <class Desc>
  const char* why_not(Desc& desc, Activation a) const {
    if (a == Activation::gelu) return "gelu: cuBLASLt has the approximation by tanh";
    if (a != Activation::relu && a != Activation::relu6) return "there is no such epilogue";
    if (desc.epilogue != ConvEpilogue::bias) return "no bias in the epilogue";
    Desc fused = desc;
    fused.epilogue = a == Activation::relu ? ConvEpilogue::bias_relu : ConvEpilogue::bias_relu6;
    if (provider_.candidates(fused).empty()) return "no kernel";
    desc = fused;
    return nullptr;
  }

  void fuse_bias(size_t i) {
    const Op bias = p_.step[i];
    const int w = sole_writer(bias.in[0]);
    if (w < 0) return;
    Op before = p_.step[static_cast<size_t>(w)];
    ValueId operand = bias.in[1];
    if (before.def == &ops::conv_fprop && std::get<ConvAttrs>(before.attrs).desc.epilogue == ConvEpilogue::none) {
      ConvDesc& desc = std::get<ConvAttrs>(before.attrs).desc;
      desc.epilogue = ConvEpilogue::bias;
      if (provider_.candidates(desc).empty()) return biases_.refused("no kernel", before.layer);
    } else if (before.def == &ops::linear_fprop &&
               std::get<LinearAttrs>(before.attrs).desc.epilogue == ConvEpilogue::none) {
      LinearDesc& desc = std::get<LinearAttrs>(before.attrs).desc;
      desc.epilogue = ConvEpilogue::bias;
      if (provider_.candidates(desc).empty()) return biases_.refused("no kernel", before.layer);
      if (desc.dtype != DType::f32) operand = low_copy(p_, operand, desc.dtype, bias.layer);
    } else {
      return;
    }
    before.in.push_back(operand);
    before.out = bias.out;
    before.note += " + bias";
    p_.step[i] = before;
    p_.step[static_cast<size_t>(w)] = {};
    biases_.applied();
  }

  Program& p_;
  ConvProvider& provider_;
  bool training_;
  PassReport linear_{p_, "fuse", "activations into linear layers"};
  PassReport biases_{p_, "fuse", "biases into convolutions and linear layers"};
  int residuals_ = 0, activations_ = 0, pools_ = 0;
};

}  // namespace

void fuse(Program& program, ConvProvider& provider, bool training) { Fuser(program, provider, training).run(); }

}  // namespace convolt
