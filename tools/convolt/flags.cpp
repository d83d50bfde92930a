#include "flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "conv/described_device.h"
#include "data/decode.h"
#include "say.h"
#include "text_table.h"
#include "word_table.h"

namespace convolt::cli {

void KernelFlags::add(FlagSet& flags) {
  flags
      .option("--autotune", autotune,
              "time the kernels of each convolution once and take the quickest: off, quick or full [off; cuda: quick]")
      .check(one_of({"off", "quick", "full"}));
  flags
      .option("--workspace-limit", workspace_limit,
              "bytes that a kernel may use beside its operands, such as 512M [any number]")
      .check(size_rule());
  flags.toggle("--deterministic", deterministic, "only kernels that give the same bits each time");
  flags.toggle("--no-cuda-graph", no_cuda_graph, "launch the kernels of each step one by one");
}

KernelOptions KernelFlags::options() const {
  KernelOptions o;
  for (const Autotune mode : {Autotune::off, Autotune::quick, Autotune::full})
    if (autotune == convolt::name_of(mode)) o.autotune = mode;
  if (workspace_limit) o.workspace_limit = to_bytes(*workspace_limit);
  o.deterministic = deterministic;
  o.cuda_graph = !no_cuda_graph;
  o.warning = [told = std::make_shared<std::set<std::string>>()](const std::string& message) {
    if (told->insert(message).second) warn(message);
  };
  return o;
}

void DeviceFlags::add(FlagSet& flags, bool described, bool chooses) {
  flags.group("Device");
  flags
      .option("--device", device,
              described ? "auto, cpu, cuda or cuda:N; or the plan for an h200, h100 or a100 that need not be here"
                        : "auto, cpu, cuda or cuda:N")
      .check({"", [described](const std::string& name) {
                if (name == "auto" || (described && is_described_device(name))) return std::string();
                try {
                  Device::parse(name);
                } catch (const UsageError&) {
                  return fmt::format("unknown device '{}': expected auto, cpu, cuda{} or cuda:N", name,
                                     described ? ", h200, h100, a100" : "");
                }
                return std::string();
              }});
  flags.option("--dtype", dtype, "type of activations: f32, tf32, bf16 or f16")
      .check(one_of({"f32", "tf32", "bf16", "f16"}));
  flags.toggle("--amp", amp,
               "f16 with a loss scale that follows the gradients on CUDA, bf16 on the CPU; before --dtype");
  flags
      .option("--threads", threads,
              "CPU compute threads, 0 for all cores; results on the CPU repeat for one number of threads")
      .check(at_least(0));
  if (chooses) kernels.add(flags);
}

std::unique_ptr<Context> DeviceFlags::make_context() const {
  return Context::create({device == "auto" ? Device::best() : Device::parse(device), threads});
}

bool DeviceFlags::on_cuda() const {
  return is_described() || (device == "auto" ? Device::best() : Device::parse(device)).is_cuda();
}

bool DeviceFlags::is_described() const { return is_described_device(device); }

DType DeviceFlags::type() const {
  if (amp) return on_cuda() ? DType::f16 : DType::bf16;
  return tf32() ? DType::f32 : dtype_from_name(dtype);
}

void MemoryFlags::add(FlagSet& flags, const std::string& otherwise) {
  flags
      .option("--memory-budget", budget,
              "device memory for parameters, optimizer and plan, such as 6G; what does not fit is recomputed [" +
                  otherwise + "]")
      .check(size_rule());
}

std::optional<int64_t> MemoryFlags::bytes() const { return budget ? to_bytes(*budget) : std::nullopt; }

namespace {
using Interpolation = AugmentOptions::Interpolation;
using Border = AugmentOptions::Border;
const WordTable<Interpolation> kInterpolations{
    {"nearest", Interpolation::nearest}, {"bilinear", Interpolation::bilinear}, {"bicubic", Interpolation::bicubic}};
const WordTable<Border> kBorders{{"constant", Border::constant}, {"edge", Border::edge}, {"reflect", Border::reflect}};
}  // namespace

void PictureFlags::add(FlagSet& flags, bool training) {
  flags.group("Pictures");
  if (training)
    flags.option("--train-crop-size", train_crop, "side of the training pictures [the model's]").check(at_least(1));
  flags.option("--val-crop-size", val_crop, "side of the evaluation pictures [the model's]").check(at_least(1));
  flags.option("--val-resize-size", val_resize, "shorter side before the centre crop [crop / 0.875]")
      .check(at_least(1));
  flags.option("--mean", mean, "mean of R,G,B in 0..1, or of grey [ImageNet's; grey 0.5]")
      .delimiter(',')
      .expected(1, 3);
  flags.option("--std", std, "standard deviation, likewise").delimiter(',').expected(1, 3);
  flags.option("--interpolation", interpolation, "filter of resizing: nearest, bilinear or bicubic [bilinear]")
      .check(name_in(kInterpolations));
  flags.option("--border", border, "outside the picture: constant (--fill), edge or reflect [constant]")
      .check(name_in(kBorders));
  flags.option("--fill", fill, "colour outside the picture, R,G,B in 0..1, or one grey [0]")
      .delimiter(',')
      .expected(1, 3);
}

namespace {
void take_three(const std::vector<float>& values, std::array<float, 3>& to, const char* flag) {
  if (values.empty()) return;
  if (values.size() == 2) throw UsageError(std::string(flag) + " takes one value or three, found 2");
  for (size_t i = 0; i < 3; ++i) to[i] = values.size() == 1 ? values[0] : values[i];
}
template <size_t N>
void take_pair(const std::vector<float>& values, std::array<float, N>& to) {
  if (values.size() == N) std::copy(values.begin(), values.end(), to.begin());
}
}  // namespace

void PictureFlags::apply_to(AugmentOptions& o) const {
  if (val_crop) {
    o.height = o.width = *val_crop;
    if (o.geometry == AugmentOptions::Geometry::none) o.geometry = AugmentOptions::Geometry::resize_centre_crop;
    o.resize = static_cast<int>(static_cast<float>(*val_crop) / 0.875F);
  }
  if (val_resize) {
    o.resize = *val_resize;
    o.geometry = AugmentOptions::Geometry::resize_centre_crop;
  }
  for (const float level : mean)
    if (!(level >= 0 && level <= 1)) throw UsageError(fmt::format("--mean: expected levels in 0..1, found {}", level));
  take_three(mean, o.mean, "--mean");
  take_three(std, o.std, "--std");
  take_three(fill, o.fill, "--fill");
  if (interpolation) o.interpolation = value_of(*interpolation, kInterpolations);
  if (border) o.border = value_of(*border, kBorders);
}

void add_views(FlagSet& flags, int& views) {
  flags
      .option(
          "--views", views,
          "logits are the mean of so many views of each picture: 1, 2 with its mirror image, 5 crops in the corners "
          "and the centre, 10 with those of its mirror image, 6 as 2 and both moved by a pixel too (--border says "
          "what moves in)")
      .check(one_of({"1", "2", "5", "6", "10"}));
}

void AugmentFlags::add(FlagSet& flags) {
  flags.group("Augmentation");
  flags.toggle("--no-augment", none,
               "train on the pictures as evaluation sees them; the flags below are added to that");
  flags
      .option("--crop-padding", crop_padding,
              "border before a random crop of the picture's size [4 for CIFAR networks and pictures of their size]")
      .check(at_least(0));
  flags.option("--scale", scale, "area of the random crop, LOW,HIGH [0.08,1]").delimiter(',').expected(2);
  flags.option("--ratio", ratio, "aspect ratio of the random crop, LOW,HIGH [0.75,1.3333]").delimiter(',').expected(2);
  flags.option("--hflip", hflip, "probability of mirroring left and right [0.5, 0 for grey pictures]")
      .check(between(0.0, 1.0));
  flags.toggle("--alternating-flip", alternating_flip,
               "draw --hflip once for each picture, and mirror all of them against that in every second epoch");
  flags.option("--vflip", vflip, "probability of mirroring top and bottom [0]").check(between(0.0, 1.0));
  flags.option("--rotate", rotate, "degrees, uniform in [-R, R] [0]").check(between(0.0, 180.0));
  flags.option("--translate", translate, "part of the side, uniform in [-T, T] [0]").check(between(0.0, 1.0));
  flags.option("--zoom", zoom, "factor, uniform in LOW,HIGH [1,1]").delimiter(',').expected(2);
  flags.option("--shear", shear, "degrees along X[,Y], uniform in [-S, S] [0,0]").delimiter(',').expected(1, 2);
  flags
      .option("--color-jitter", color_jitter,
              "brightness,contrast,saturation,hue: factors uniform in [1-v, 1+v], hue in [-v, v] [0,0,0,0]")
      .delimiter(',')
      .expected(1, 4);
  flags.option("--grayscale", grayscale, "probability of a picture without colour [0]").check(between(0.0, 1.0));
  flags.option("--random-erase,--reprob", erase, "probability of erasing a rectangle [0]").check(between(0.0, 1.0));
  policy.add(flags);
}

std::pair<int, int> common_size(const Dataset& data) {
  if (data.fixed_height() > 0) return {data.fixed_height(), data.fixed_width()};
  std::pair<int, int> size{0, 0};
  constexpr int64_t kLooks = 32;
  for (int64_t k = 0; k < std::min(kLooks, data.size()); ++k) {
    try {
      const int64_t i = k * data.size() / std::min(kLooks, data.size());
      const auto known = data.extent(i);
      if (known && known->height == 0) continue;
      const PictureSize whole =
          known ? decoded_size(known->height, known->width, known->channels, {}) : decoded_size(data.read(i), {});
      const std::pair<int, int> found{whole.height, whole.width};
      if (size.first == 0) size = found;
      if (size != found) return {0, 0};
    } catch (const DataError&) {
      continue;  // the loader reports it
    }
  }
  return size;
}

namespace {

void set_augmentation(AugmentOptions& o, const AugmentFlags& f) {
  if (f.crop_padding) {
    o.geometry = AugmentOptions::Geometry::crop_with_padding;
    o.crop_padding = *f.crop_padding;
  }
  if (!f.scale.empty() || !f.ratio.empty()) {
    if (f.crop_padding) throw UsageError("--crop-padding and --scale or --ratio are two ways to crop; give one");
    o.geometry = AugmentOptions::Geometry::random_resized_crop;
  }
  take_pair(f.scale, o.scale);
  take_pair(f.ratio, o.ratio);
  take_pair(f.zoom, o.zoom);
  if (f.hflip) o.hflip = *f.hflip;
  o.alternating_flip = f.alternating_flip;
  if (f.vflip) o.vflip = *f.vflip;
  if (f.rotate) o.rotate = *f.rotate;
  if (f.translate) o.translate = *f.translate;
  if (f.erase) o.erase = *f.erase;
  const auto jitter = [&](size_t i) { return i < f.color_jitter.size() ? f.color_jitter[i] : 0.F; };
  o.brightness = jitter(0);
  o.contrast = jitter(1);
  o.saturation = jitter(2);
  o.hue = jitter(3);
  if (f.grayscale) o.grayscale = *f.grayscale;
  std::copy(f.shear.begin(), f.shear.end(), o.shear.begin());
  f.policy.apply_to(o);
}

// What evaluation does to the pictures of a model: as torchvision for its usual size, 256 to 224 for others.
AugmentOptions evaluation_of(const ModelInfo& model, ModelInfo::Recipe recipe, int side, int channels) {
  AugmentOptions e;
  e.height = e.width = side;
  e.channels = channels;
  e.mean = model.mean;
  e.std = model.std;
  e.interpolation = model.interpolation;
  if (channels == 1) {
    e.mean.fill(0.5F);
    e.std.fill(0.5F);
  }
  e.geometry = AugmentOptions::Geometry::resize_centre_crop;
  e.resize = recipe != ModelInfo::Recipe::imagenet ? side
             : side == model.size                  ? model.resize
                                                   : static_cast<int>(static_cast<float>(side) / 0.875F);
  return e;
}

void add_usual_augmentation(AugmentOptions& t, ModelInfo::Recipe recipe, bool as_is) {
  using Geometry = AugmentOptions::Geometry;
  if (recipe == ModelInfo::Recipe::cifar) {
    t.hflip = 0.5F;
    if (as_is) {
      t.geometry = Geometry::crop_with_padding;
      t.crop_padding = 4;
    }
  } else if (recipe == ModelInfo::Recipe::imagenet) {
    t.geometry = Geometry::random_resized_crop;
    t.hflip = 0.5F;
  }
}

}  // namespace

Pipeline make_pipeline(const ModelInfo& model, const Dataset& data, const PictureFlags& pictures,
                       const AugmentFlags& augment) {
  using Geometry = AugmentOptions::Geometry;
  using Recipe = ModelInfo::Recipe;
  const Recipe recipe = data.channels() == 1 ? Recipe::digits : model.recipe;
  const auto [height, width] = common_size(data);
  const int side =
      pictures.train_crop.value_or(recipe == Recipe::digits && height > 0 && height == width ? height : model.size);
  const bool as_is = height == side && width == side;

  Pipeline p;
  AugmentOptions& e = p.evaluation;
  e = evaluation_of(model, recipe, side, data.channels());
  if (as_is || recipe == Recipe::digits) e.geometry = Geometry::none;
  p.training = e;
  pictures.apply_to(e);
  p.training.mean = e.mean;
  p.training.std = e.std;
  p.training.fill = e.fill;
  p.training.interpolation = e.interpolation;
  p.training.border = e.border;

  if (!augment.none) add_usual_augmentation(p.training, recipe, as_is);
  set_augmentation(p.training, augment);
  return p;
}

AugmentOptions usual_pictures(const ModelInfo& model, int side, int channels) {
  AugmentOptions o = evaluation_of(model, model.recipe, side, channels);
  add_usual_augmentation(o, model.recipe, true);
  return o;
}

void resolve(const Pipeline& pipeline, Resolved& r) {
  using Geometry = AugmentOptions::Geometry;
  const AugmentOptions& t = pipeline.training;
  const AugmentOptions& e = pipeline.evaluation;
  const auto set = [&](const char* flag, const auto&... values) { r[flag] = {fmt::format("{}", values)...}; };
  set("train-crop-size", t.height);
  if (e.geometry == Geometry::resize_centre_crop) {
    set("val-crop-size", e.height);
    set("val-resize-size", e.resize);
  }
  set("mean", e.mean[0], e.mean[1], e.mean[2]);
  set("std", e.std[0], e.std[1], e.std[2]);
  set("fill", e.fill[0], e.fill[1], e.fill[2]);
  set("interpolation", name_of(e.interpolation, kInterpolations));
  set("border", name_of(e.border, kBorders));
  set("no-augment", true);  // nothing of the recipe's own: all is named below
  if (t.geometry == Geometry::crop_with_padding) set("crop-padding", t.crop_padding);
  if (t.geometry == Geometry::random_resized_crop) {
    set("scale", t.scale[0], t.scale[1]);
    set("ratio", t.ratio[0], t.ratio[1]);
  }
  set("hflip", t.hflip);
  set("alternating-flip", t.alternating_flip);
  set("vflip", t.vflip);
  set("rotate", t.rotate);
  set("translate", t.translate);
  set("zoom", t.zoom[0], t.zoom[1]);
  set("shear", t.shear[0], t.shear[1]);
  set("color-jitter", t.brightness, t.contrast, t.saturation, t.hue);
  set("grayscale", t.grayscale);
  set("random-erase", t.erase);
  resolve_policy(t, r);
}

template <class T>
void take_from_run(const FlagSet& flags, const ModelCard& card, const std::string& flag, T& value) {
  if (flags.has("--" + flag) && flags.given("--" + flag)) return;
  const nlohmann::ordered_json run = configuration_of(card);
  std::string key = flag;
  std::replace(key.begin(), key.end(), '-', '_');
  if (!run.contains(key)) return;
  try {
    value = run.at(key).get<T>();
  } catch (const nlohmann::json::exception&) {  // of another version
  }
}
template void take_from_run(const FlagSet&, const ModelCard&, const std::string&, bool&);
template void take_from_run(const FlagSet&, const ModelCard&, const std::string&, int&);
template void take_from_run(const FlagSet&, const ModelCard&, const std::string&, int64_t&);
template void take_from_run(const FlagSet&, const ModelCard&, const std::string&, uint64_t&);
template void take_from_run(const FlagSet&, const ModelCard&, const std::string&, double&);
template void take_from_run(const FlagSet&, const ModelCard&, const std::string&, std::string&);
template void take_from_run(const FlagSet&, const ModelCard&, const std::string&, std::vector<float>&);

int threads_or_cores(int threads) {
  return threads > 0 ? threads : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

void NetworkFlags::add(FlagSet& flags) {
  flags.group("Network");
  flags.option("--checkpoint", checkpoint,
               "a checkpoint of convolt train: network, weights, classes and preprocessing");
  flags.option("--model", model, "name of a network, or FILE.json, with --weights");
  flags.option("--weights", weights, "a safetensors file under torchvision's names");
  flags.option("--num-classes", classes, "outputs of --model [those of the data set]")
      .check(at_least(1))
      .hide_default();
}

void NetworkFlags::check() const {
  if (checkpoint.empty() == (model.empty() || weights.empty()))
    throw UsageError("give either --checkpoint FILE, or --model NAME and --weights FILE.safetensors");
  if (!checkpoint.empty() && (!model.empty() || !weights.empty() || classes > 0))
    throw UsageError(
        "--checkpoint names network, weights and classes itself; leave out --model, --weights and "
        "--num-classes");
}

Network load_network(const NetworkFlags& f, const PictureFlags& pictures, Context& context, const Dataset* data) {
  f.check();
  ModelCard card;
  if (!f.checkpoint.empty()) {
    card = read_card(f.checkpoint);
    pictures.apply_to(card.preprocessing);
  } else {
    const ModelInfo info = find_model(f.model);
    card.model = f.model;
    card.network = info.network;
    if (data == nullptr && f.classes == 0) throw UsageError("--model needs --num-classes here");
    card.classes = f.classes > 0 ? f.classes : static_cast<int64_t>(data->class_names().size());
    if (data != nullptr) {
      card.preprocessing = make_pipeline(info, *data, {}, {}).evaluation;
      card.class_names = data->class_names();
    } else {
      card.preprocessing = evaluation_of(info, info.recipe, info.size, 3);
    }
    pictures.apply_to(card.preprocessing);
    card.channels = card.preprocessing.channels;
    card.height = card.preprocessing.height;
    card.width = card.preprocessing.width;
  }
  return convolt::load_network(context, card, f.checkpoint.empty() ? f.weights : f.checkpoint);
}

void warn(const std::string& message) { say("warning: {}\n", message); }

void report_bad_samples(const std::vector<BadSample>& bad) {
  if (bad.empty()) return;
  say("{} {} could not be used:\n", bad.size(), bad.size() == 1 ? "picture" : "pictures");
  constexpr size_t kShown = 10;
  for (size_t i = 0; i < std::min(kShown, bad.size()); ++i)
    say("  {}: {}\n", printable(bad[i].name), printable(bad[i].reason));
  if (bad.size() > kShown) say("  and {} more\n", bad.size() - kShown);
}

}  // namespace convolt::cli
