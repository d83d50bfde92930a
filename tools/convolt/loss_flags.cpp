#include <fmt/format.h>

#include <fstream>
#include <iomanip>

#include "flags.h"
#include "text_table.h"

namespace convolt::cli {

void LossFlags::add(FlagSet& flags) {
  flags.group("Loss");
  flags
      .option("--loss", kind,
              "ce: cross-entropy; bce: binary cross-entropy of each class; focal: cross-entropy that looks at what is "
              "hard. Validation reports plain cross-entropy")
      .check(one_of({"ce", "bce", "focal"}));
  flags.option("--label-smoothing,--smoothing", smoothing, "part of each target that is spread over all classes")
      .check(between(0.0, 1.0));
  flags
      .option("--bce-target-thresh", target_threshold,
              "of --loss bce: smoothed and mixed targets above it become 1, all others 0")
      .check(between(0.0, 1.0));
  flags.option("--class-weights", class_weights,
               "a file with one number for each class in order of their names, or 'balanced': samples / (classes x "
               "samples of the class)");
  flags.option("--focal-gamma", focal_gamma, "exponent of --loss focal").check(at_least(0));
  const Flag teacher_flag = flags.option("--teacher", teacher, "a checkpoint to distil from");
  flags.option("--distill-alpha", distill_alpha, "weight of the teacher's part in the loss")
      .check(between(0.0, 1.0))
      .needs(teacher_flag);
  flags.option("--distill-temperature", temperature, "temperature of both softmaxes in it")
      .check(above(0))
      .needs(teacher_flag);
}

namespace {

std::vector<float> balanced(const Dataset& data, int64_t classes) {
  std::vector<int64_t> counts(static_cast<size_t>(classes));
  for (int64_t i = 0; i < data.size(); ++i) ++counts[static_cast<size_t>(data.label(i))];
  std::vector<float> weights;
  for (const int64_t n : counts)  // a class without samples never weighs
    weights.push_back(n == 0 ? 0.F : static_cast<float>(data.size()) / static_cast<float>(classes * n));
  return weights;
}

std::vector<float> read_numbers(const std::string& path, int64_t classes) {
  std::ifstream file(path);
  if (!file) throw DataError("cannot read the class weights '" + path + "'");
  std::vector<float> numbers;
  constexpr int kLongest = 64;  // no device has a word without end
  for (std::string word; static_cast<int64_t>(numbers.size()) <= classes && file >> std::setw(kLongest) >> word;) {
    const std::optional<double> value = to_number(word);
    if (!value || !(*value >= 0))
      throw FormatError(
          fmt::format("class weights '{}': expected numbers of at least 0, found '{}'", path, printable(word)));
    numbers.push_back(static_cast<float>(*value));
  }
  if (static_cast<int64_t>(numbers.size()) != classes)
    throw FormatError(
        fmt::format("class weights '{}': expected a number for each of the {} classes, found {}", path, classes,
                    static_cast<int64_t>(numbers.size()) > classes ? "more" : std::to_string(numbers.size())));
  return numbers;
}

}  // namespace

LossOptions LossFlags::options(const Dataset& data, int64_t classes) const {
  LossOptions o;
  o.kind = kind == "bce" ? LossKind::binary_cross_entropy : kind == "focal" ? LossKind::focal : LossKind::cross_entropy;
  o.smoothing = smoothing;
  o.target_threshold = target_threshold;
  if (target_threshold && kind != "bce") throw UsageError("--bce-target-thresh is for --loss bce, not for " + kind);
  if (!class_weights.empty())
    o.class_weights = class_weights == "balanced" ? balanced(data, classes) : read_numbers(class_weights, classes);
  if (focal_gamma != o.focal_gamma && kind != "focal")
    throw UsageError("--focal-gamma is for --loss focal, not for " + kind);
  o.focal_gamma = focal_gamma;
  o.distill_alpha = teacher.empty() ? 0 : distill_alpha;
  o.temperature = temperature;
  return o;
}

std::optional<Network> LossFlags::load_teacher(Context& context, const AugmentOptions& pictures) const {
  if (teacher.empty()) return std::nullopt;
  if (distill_alpha == 0) {
    warn("--distill-alpha 0 asks the --teacher for nothing");
    return std::nullopt;
  }
  NetworkFlags flags;
  flags.checkpoint = teacher;
  Network network = load_network(flags, {}, context, nullptr);
  const AugmentOptions& own = network.card.preprocessing;
  if (own.channels != pictures.channels)
    throw UsageError(fmt::format("--teacher '{}' reads pictures of {} channels, the student of {}", teacher,
                                 own.channels, pictures.channels));
  if (own.mean != pictures.mean || own.std != pictures.std || own.height != pictures.height ||
      own.width != pictures.width)
    warn("the teacher '" + teacher + "' was trained on pictures of another size, --mean or --std than it is shown");
  return network;
}

}  // namespace convolt::cli
