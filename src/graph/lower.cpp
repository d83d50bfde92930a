#include "graph/lower.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "augment/policy.h"
#include "conv/autotune.h"
#include "graph/layer.h"

namespace convolt {

std::vector<ValueId> LoweringContext::emit(const OpDef& def, std::vector<ValueId> in, Attrs attrs,
                                           const std::string& suffix) {
  return convolt::emit(program, program.step,
                       {.def = &def, .in = std::move(in), .attrs = std::move(attrs), .layer = layer.name},
                       layer.name + suffix);
}

std::vector<ValueId> LoweringContext::emit_prepare(const OpDef& def, std::vector<ValueId> in, Attrs attrs,
                                                   const std::string& suffix) {
  auto out = convolt::emit(program, program.prepare,
                           {.def = &def, .in = std::move(in), .attrs = std::move(attrs), .layer = layer.name},
                           layer.name + suffix);
  for (const ValueId v : out) program[v].persistent = true;
  return out;
}

ValueId low_copy(Program& program, ValueId full, DType dtype, const std::string& layer) {
  ValueInfo copy = program[full];
  copy.dtype = dtype;
  copy.home = Home::copy;
  const ValueId low = program.add(std::move(copy));
  program.prepare.push_back({.def = &ops::cast_weights, .in = {full}, .out = {low}, .attrs = {}, .layer = layer});
  return low;
}

namespace {

// The operands of a layer that live in Params: f32, and in the plan's dtype for what convolutions and linear layers
// multiply.
struct ParamValues {
  std::vector<ValueId> full, low;
};

ParamValues param_values(Program& program, const Graph& graph, const Layer& layer, DType dtype) {
  ParamValues v;
  for (const int i : layer.params) {
    const ParamSpec& spec = graph.params()[static_cast<size_t>(i)];
    v.full.push_back(
        program.add({.name = spec.name, .dtype = DType::f32, .shape = spec.shape, .home = Home::param, .param = i}));
    v.low.push_back(v.full.back());
    const bool multiplied = spec.shape.rank() > 1;
    if (dtype == DType::f32 || !multiplied) continue;
    v.low.back() = low_copy(program, v.full.back(), dtype, layer.name);
  }
  return v;
}

// That the augmentation makes what the network reads.
void check_pictures(const AugmentOptions& made, const Shape& read) {
  check(made);
  if (made.height != read[0] || made.width != read[1] || made.channels != read[2])
    throw UsageError(
        fmt::format("the augmentation makes pictures of {} x {} x {}, but the plan reads {} x {} x {}: "
                    "AugmentOptions and PlanOptions must agree on height and width, the graph on channels",
                    made.height, made.width, made.channels, read[0], read[1], read[2]));
}

}  // namespace

Program lower(const Graph& graph, const PlanOptions& options) {
  if (graph.layers().empty()) throw UsageError("the graph has no layers: begin with Graph::input()");
  Program program;
  const Shape& declared = graph.layers()[0].shape;
  const int height = options.height > 0 ? options.height : static_cast<int>(declared[0]);
  const int width = options.width > 0 ? options.width : static_cast<int>(declared[1]);
  if (options.height < 0 || options.width < 0)
    throw UsageError(fmt::format("a plan's pictures are of at least 1 x 1, or 0 for the graph's size; found {} x {}",
                                 options.height, options.width));
  if (options.augment) check_pictures(*options.augment, {height, width, declared[2]});
  graph.shapes_for(height, width);  // throws the layer's own error for a size that does not fit

  std::vector<ValueId> values(graph.layers().size(), kNoValue);
  const ValueId image = program.add(
      {.name = graph.layers()[0].name, .dtype = options.dtype, .shape = {options.batch, height, width, declared[2]}});
  values[0] = image;
  if (options.augment)
    program.step.push_back(
        {.def = &ops::augment, .in = {}, .out = {image}, .attrs = AugmentAttrs{*options.augment}, .layer = "input"});
  else
    program.step.push_back({.def = &ops::load_images, .in = {}, .out = {image}, .attrs = {}, .layer = "input"});
  if (options.mixing)
    program.step.push_back({.def = &ops::mix, .in = {image}, .out = {}, .attrs = {}, .layer = "input"});

  for (size_t i = 1; i < graph.layers().size(); ++i) {
    const Layer& layer = graph.layers()[i];
    const ParamValues params = param_values(program, graph, layer, options.dtype);
    LoweringContext context{program,       layer,        static_cast<int>(i), {}, params.full, params.low,
                            options.dtype, options.tf32, options.training};
    for (const int input : layer.inputs) context.inputs.push_back(values[static_cast<size_t>(input)]);
    values[i] = layer.def->lower(context);
  }
  program.logits = values[static_cast<size_t>(graph.output_layer())];
  program[program.logits].persistent = true;
  program.gradients.assign(graph.params().size(), kNoValue);
  for (size_t i = 0; i < graph.params().size(); ++i)
    program.trained.push_back(options.optimizer != nullptr ? options.optimizer->updates(static_cast<int>(i))
                                                           : graph.params()[i].trainable);
  return program;
}

namespace {

// After a step whose loss was not finite.
bool goes_on(const PlanOptions& options) {
  return options.optimizer != nullptr && options.optimizer->options().bad_steps != BadStepPolicy::stop;
}

UpdateRule update_rule(const PlanOptions& options) {
  const OptimizerOptions& o = options.optimizer->options();
  return {.kind = o.kind,
          .momentum = o.momentum,
          .nesterov = o.nesterov,
          .beta1 = betas_of(o)[0],
          .beta2 = betas_of(o)[1],
          .alpha = o.alpha,
          .eps = eps_of(o),
          .trust = o.trust,
          .matrix_momentum = o.muon_momentum,
          .iterations = o.muon_iterations,
          .renormalise = o.muon_renormalise,
          .clip_norm = clip_norm_of(o),
          .clip_adaptive = o.clip_adaptive,
          .average_decay = o.ema_decay,
          .check_finite = options.dtype == DType::f16 || goes_on(options),
          .scale_loss = options.dtype == DType::f16,
          .bad_steps = o.bad_steps};
}

void append_optimizer(Program& program, const PlanOptions& options) {
  const Optimizer& optimizer = *options.optimizer;
  const auto& specs = optimizer.params().specs();
  OptimizerAttrs attrs{.optimizer = &optimizer, .rule = update_rule(options)};
  Op update{.def = &ops::optimizer_update, .layer = "optimizer"};
  for (size_t i = 0; i < specs.size(); ++i) {
    const int param = static_cast<int>(i);
    if (!specs[i].trainable && optimizer.average() != nullptr) attrs.averaged.push_back(param);
    if (program.gradients[i] == kNoValue) continue;
    attrs.params.push_back(param);
    update.in.push_back(program.gradients[i]);
  }
  if (attrs.params.empty()) throw UsageError("every parameter is frozen: there is nothing to train");
  update.attrs = attrs;
  if (options.accumulate > 1) {
    program.gradient_sums = program.add({.name = "gradient sums",
                                         .dtype = DType::f32,
                                         .shape = {optimizer.params().trainable_bytes() / 4},
                                         .persistent = true});
    Op accumulate = update;
    accumulate.def = &ops::accumulate_gradients;
    program.step.push_back(std::move(accumulate));
  }
  program.step.push_back(std::move(update));
}

}  // namespace

namespace {

void check_loss(const LossOptions& o, int64_t classes, bool mixing) {
  const auto fail = [](const std::string& message) { throw UsageError("the loss: " + message); };
  for (const auto& [name, weights] : {std::pair{"class", &o.class_weights}, {"positive", &o.positive_weights}}) {
    if (weights->empty()) continue;
    if (static_cast<int64_t>(weights->size()) != classes)
      fail(fmt::format("expected one {} weight for each of the {} classes, found {}", name, classes, weights->size()));
    if (std::any_of(weights->begin(), weights->end(), [](float w) { return !(w >= 0 && w < INFINITY); }))
      fail(fmt::format("{} weights must be finite and at least 0", name));
  }
  if (!o.class_weights.empty() && (o.kind == LossKind::sigmoid_focal || o.kind == LossKind::mean_squared_error))
    fail("class weights belong to cross_entropy, focal and binary_cross_entropy");
  if (!o.positive_weights.empty() && o.kind != LossKind::binary_cross_entropy)
    fail("positive weights belong to binary_cross_entropy");
  if (!(o.smoothing >= 0 && o.smoothing <= 1)) fail(fmt::format("smoothing lies in 0..1, found {}", o.smoothing));
  if (o.smoothing > 0 && o.kind == LossKind::mean_squared_error) fail("mean_squared_error has no smoothing");
  if (o.target_threshold && o.kind != LossKind::binary_cross_entropy)
    fail("a threshold of the targets belongs to binary_cross_entropy");
  if (o.target_threshold && !(*o.target_threshold >= 0 && *o.target_threshold < 1))
    fail(fmt::format("the threshold of the targets lies in 0 to below 1, found {}", *o.target_threshold));
  if (o.ignore_index && o.target == LossOptions::Target::dense)
    fail("ignore_index belongs to labels; give such rows of dense targets the weight 0");
  if (o.custom && (o.smoothing > 0 || o.target_threshold || !o.class_weights.empty() || !o.positive_weights.empty() ||
                   o.distill_alpha > 0))
    fail("a custom one takes neither smoothing nor a threshold, class weights, positive weights or a teacher");
  if (!(o.focal_gamma >= 0)) fail(fmt::format("focal_gamma must be at least 0, found {}", o.focal_gamma));
  if (!(o.distill_alpha >= 0 && o.distill_alpha <= 1))
    fail(fmt::format("distill_alpha lies in 0..1, found {}", o.distill_alpha));
  if (mixing && (o.target == LossOptions::Target::dense || o.custom))
    fail("mixing mixes labels; dense targets are mixed by whoever makes them, and a custom loss sees one label a row");
  if (mixing && o.ignore_index)
    fail("mixing takes every row's label, and ignore_index leaves some out; give one of them");
  if (!(o.temperature > 0)) fail(fmt::format("the temperature must be above 0, found {}", o.temperature));
}

// Evaluation measures the same kind plainly.
LossOptions plain(LossOptions o) {
  o.smoothing = 0;
  o.target_threshold.reset();
  o.class_weights.clear();
  o.positive_weights.clear();
  o.distill_alpha = 0;
  return o;
}

ValueId constant(Program& program, const char* name, const std::vector<float>& data) {
  if (data.empty()) return kNoValue;
  const auto n = static_cast<int64_t>(data.size());
  const ValueId v = program.add({.name = name, .dtype = DType::f32, .shape = {n}, .persistent = true});
  program.constants.push_back({v, data});
  return v;
}

}  // namespace

void lower_training(Program& program, const PlanOptions& options) {
  const std::vector<Op> forward = program.step;
  check_loss(options.loss, program[program.logits].shape[-1], options.mixing);
  const LossAttrs attrs{options.training ? options.loss : plain(options.loss), options.training, goes_on(options),
                        options.mixing};
  Op loss{.def = &ops::loss,
          .in = {program.logits, constant(program, "class weights", attrs.options.class_weights),
                 constant(program, "positive weights", attrs.options.positive_weights)},
          .attrs = attrs,
          .layer = "loss"};
  if (options.loss.custom)
    for (const ValueId given :
         emit(program, program.step,
              {.def = &ops::custom_loss, .in = {program.logits}, .attrs = attrs, .layer = "loss"}, "loss.custom"))
      loss.in.push_back(given);
  const auto out = emit(program, program.step, std::move(loss), "loss.dx");
  if (options.expose_logits) {
    program.exposed_logits = program.add(
        {.name = "logits.f32", .dtype = DType::f32, .shape = program[program.logits].shape, .persistent = true});
    program.step.push_back(
        {.def = &ops::cast, .in = {program.logits}, .out = {program.exposed_logits}, .attrs = {}, .layer = "logits"});
  }
  if (!options.training) return;
  GradientBuilder builder(program, program.step);
  builder.run(forward, program.logits, out[0]);
  if (options.optimizer != nullptr) append_optimizer(program, options);
}

namespace {

std::shared_ptr<ConvKernel> best_kernel(Op& op, Autotuner& tuner) {
  auto [kernel, origin] = std::holds_alternative<ConvAttrs>(op.attrs)
                              ? tuner.choose(std::get<ConvAttrs>(op.attrs).desc)
                              : tuner.choose(std::get<LinearAttrs>(op.attrs).desc);
  if (origin != Autotuner::Origin::order)
    op.note +=
        std::string(op.note.empty() ? "" : " ") + (origin == Autotuner::Origin::tuned ? "(tuned)" : "(recorded)");
  if (kernel != nullptr) return kernel;
  const std::string what =
      std::holds_alternative<ConvAttrs>(op.attrs) ? std::get<ConvAttrs>(op.attrs).desc.geometry.to_string() : "linear";
  throw DeviceError(fmt::format("{} '{}': {} offers no implementation of {}", op.def->name, op.layer,
                                tuner.allowed().describe(), what));
}

// Takes fusions out of a description; says whether there were any.
bool make_plain(ConvDesc& desc) {
  const bool fused = desc.prologue != ConvPrologue::none || desc.epilogue == ConvEpilogue::stats ||
                     desc.epilogue == ConvEpilogue::drelu_bn_reduce || desc.epilogue == ConvEpilogue::join;
  if (!fused) return false;
  desc.prologue = ConvPrologue::none;
  desc.epilogue = ConvEpilogue::none;
  return true;
}
bool make_plain(LinearDesc& desc) {
  const ConvEpilogue e = desc.epilogue;
  const bool masks = e == ConvEpilogue::bias_relu_mask;
  if (!masks && e != ConvEpilogue::bias_gradient && e != ConvEpilogue::drelu_bias_gradient) return false;
  desc.epilogue = masks ? ConvEpilogue::bias_relu : ConvEpilogue::none;
  return true;
}

// One of two that share a mask, whose layout is the library's own: a plain kernel in place of either cannot know it.
bool shares_mask(ConvEpilogue e) { return e == ConvEpilogue::bias_relu_mask || e == ConvEpilogue::drelu_bias_gradient; }

// A fusion by a kernel of its own; composed of plain ones where there is none and `compose` allows it, and where all
// turn out wrong.
template <class Attrs>
void choose_kernel(Op& op, const Attrs& attrs, Autotuner& tuner, bool compose) {
  Op plain = op;
  const bool fused = make_plain(std::get<Attrs>(plain.attrs).desc);
  const bool none = fused && compose && tuner.allowed().candidates(attrs.desc).empty();
  try {
    if (!none) {
      op.kernel = best_kernel(op, tuner);
      return;
    }
  } catch (const WrongKernelsError&) {
    if (!fused || shares_mask(attrs.desc.epilogue)) throw;
    op.note += ", composed: no kernel of it is right";
  }
  op.composed = true;
  op.kernel = best_kernel(plain, tuner);
}

}  // namespace

void choose_kernels(Program& program, Autotuner& tuner, bool training, bool compose) {
  std::vector<Op> step;
  std::map<std::pair<ValueId, std::string>, ValueId> packed;
  for (Op& op : program.step) {
    const bool conv = std::holds_alternative<ConvAttrs>(op.attrs),
               linear = std::holds_alternative<LinearAttrs>(op.attrs);
    if (!conv && !linear) {
      step.push_back(std::move(op));
      continue;
    }
    if (conv)
      choose_kernel(op, std::get<ConvAttrs>(op.attrs), tuner, compose);
    else
      choose_kernel(op, std::get<LinearAttrs>(op.attrs), tuner, compose);
    const ConvPass pass = conv ? std::get<ConvAttrs>(op.attrs).desc.pass : std::get<LinearAttrs>(op.attrs).desc.pass;
    if (op.kernel->packed_bytes() == 0) {
      step.push_back(std::move(op));
    } else if (pass != ConvPass::wgrad) {
      auto [known, fresh] = packed.try_emplace({op.in[1], op.kernel->packed_format()}, kNoValue);
      ValueId& blob = known->second;
      if (fresh) {
        Op pack{.def = &ops::pack_weights, .in = {op.in[1]}, .attrs = {}, .layer = op.layer};
        pack.kernel = op.kernel;
        std::vector<Op>& list = training ? step : program.prepare;
        blob = emit(program, list, std::move(pack), op.layer + ".packed")[0];
        program[blob].persistent = !training;
      }
      op.in[1] = blob;
      step.push_back(std::move(op));
    } else {
      // The kernel writes its own form; unpacking gives the gradient that the optimizer reads.
      const ValueId plain = op.out[0];
      const ValueId blob =
          program.add({.name = op.layer + ".dw.packed", .dtype = DType::u8, .shape = {op.kernel->packed_bytes()}});
      Op unpack{.def = &ops::unpack_gradient, .in = {blob}, .out = {plain}, .attrs = {}, .layer = op.layer};
      unpack.kernel = op.kernel;
      op.out[0] = blob;
      step.push_back(std::move(op));
      step.push_back(std::move(unpack));
    }
  }
  program.step = std::move(step);
  tuner.finish();
}

}  // namespace convolt
