#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <opencv2/imgproc.hpp>

#include "augment/policy.h"
#include "commands.h"
#include "data/render.h"
#include "data/sampler.h"
#include "drawing.h"
#include "flags.h"
#include "text_table.h"

namespace convolt::cli {
namespace {

struct AugmentCommand {
  DeviceFlags device;
  std::string path, format = "auto", model = "resnet18", out;
  DecodeFlags decode;
  PictureFlags pictures;
  AugmentFlags augment;
  int count = 8, variants = 6;
  uint64_t seed = 0;
  std::optional<int> sample, epoch;
  bool explain = false, json = false;
};

// One picture of the data set: as evaluation sees it, then as each epoch does.
struct Row {
  std::string label, file;
  std::vector<cv::Mat> tiles;
};

std::string describe(const AugmentOptions& o) {
  using Geometry = AugmentOptions::Geometry;
  std::vector<std::string> parts;
  const auto amount = [&](const char* name, float value) {
    if (value != 0) parts.push_back(fmt::format("{} {:g}", name, value));
  };
  if (o.geometry == Geometry::random_resized_crop)
    parts.push_back(fmt::format("random resized crop of {:g} to {:g}", o.scale[0], o.scale[1]));
  if (o.geometry == Geometry::crop_with_padding) parts.push_back(fmt::format("crop with padding {}", o.crop_padding));
  amount("hflip", o.hflip);
  if (o.alternating_flip) parts.emplace_back("alternating flip");
  amount("vflip", o.vflip);
  amount("rotate", o.rotate);
  if (o.shear[0] != 0 || o.shear[1] != 0) parts.push_back(fmt::format("shear {:g},{:g}", o.shear[0], o.shear[1]));
  if (o.zoom[0] != 1 || o.zoom[1] != 1) parts.push_back(fmt::format("zoom {:g} to {:g}", o.zoom[0], o.zoom[1]));
  amount("translate", o.translate);
  for (std::string& part : describe_policy(o)) parts.push_back(std::move(part));
  amount("brightness", o.brightness);
  amount("contrast", o.contrast);
  amount("saturation", o.saturation);
  amount("hue", o.hue);
  amount("grayscale", o.grayscale);
  amount("erase", o.erase);
  return parts.empty() ? "no augmentation" : fmt::format("{}", fmt::join(parts, ", "));
}

std::string class_of(const Dataset& data, int64_t sample) {
  return printable(data.class_names()[static_cast<size_t>(data.label(sample))]);
}

Row make_row(const AugmentCommand& c, Context& context, const Dataset& data, const Pipeline& pipeline, int64_t sample) {
  const AugmentOptions &seen = pipeline.evaluation, &trained = pipeline.training;
  Row row;
  row.label = class_of(data, sample);
  row.file = printable(std::filesystem::path(data.name(sample)).filename().string());
  const uint32_t first = 0;
  const std::vector<uint8_t> original =
      render(context, decode_sample(data, sample, seen, c.decode.options()), seen, c.seed, sample, {&first, 1});
  row.tiles.push_back(bgr_of(original.data(), seen.height, seen.width, seen.channels));
  std::vector<uint32_t> epochs(static_cast<size_t>(c.variants));
  std::iota(epochs.begin(), epochs.end(), 0U);
  const std::vector<uint8_t> variants =
      render(context, decode_sample(data, sample, trained, c.decode.options()), trained, c.seed, sample, epochs);
  const size_t bytes = variants.size() / epochs.size();
  for (const uint32_t epoch : epochs)
    row.tiles.push_back(bgr_of(variants.data() + epoch * bytes, trained.height, trained.width, trained.channels));
  return row;
}

// The first pictures of the order that the seed draws; those that cannot be read are named and left out.
std::vector<Row> make_rows(const AugmentCommand& c, Context& context, const Dataset& data, const Pipeline& pipeline) {
  const Permutation order(data.size(), c.seed, 0);
  std::vector<Row> rows;
  std::vector<BadSample> bad;
  for (int64_t i = 0; i < data.size() && static_cast<int>(rows.size()) < c.count; ++i) {
    try {
      rows.push_back(make_row(c, context, data, pipeline, order(i)));
    } catch (const DataError& error) {
      bad.push_back({data.name(order(i)), error.what()});
    }
  }
  report_bad_samples(bad);
  if (rows.empty()) throw DataError("'" + c.path + "': no picture could be read");
  return rows;
}

const cv::Scalar kPaper{250, 250, 250}, kInk{40, 40, 40}, kFaint{125, 125, 125};
constexpr int kGap = 8, kMargin = 24, kNames = 170, kHead = 112;

// Where the tiles lie; small ones are enlarged by a whole number, so that pixels stay squares.
struct Places {
  int times = 1, height = 0, width = 0;

  explicit Places(const Row& row) {
    for (const cv::Mat& tile : row.tiles) {
      height = std::max(height, tile.rows);
      width = std::max(width, tile.cols);
    }
    constexpr int kSmallestTile = 112;
    times = std::max(1, kSmallestTile / std::max(height, width));
    height *= times;
    width *= times;
  }
  // The original is set apart from its versions.
  int left(int column) const { return kNames + column * (width + kGap) + (column > 0 ? 2 * kGap : 0); }
  int top(int line) const { return kHead + line * (height + kGap); }
};

void draw_row(cv::Mat& sheet, const Places& places, const Row& row, int line) {
  constexpr int kLetters = kNames - kMargin - 14;
  const int top = places.top(line), middle = top + places.height / 2;
  draw_text(sheet, fitted(drawable(row.label).value_or("?"), 11, kLetters), {kMargin, middle - 10}, {.colour = kInk});
  draw_text(sheet, fitted(drawable(row.file).value_or("?"), 8, kLetters, Keep::end), {kMargin, middle + 12},
            {.height = 8, .colour = kFaint});
  for (size_t column = 0; column < row.tiles.size(); ++column) {
    cv::Mat tile;
    cv::resize(row.tiles[column], tile, {}, places.times, places.times, cv::INTER_NEAREST);
    tile.copyTo(sheet({places.left(static_cast<int>(column)) + (places.width - tile.cols) / 2,
                       top + (places.height - tile.rows) / 2, tile.cols, tile.rows}));
  }
}

cv::Mat draw_sheet(const std::vector<Row>& rows, const std::string& title, const std::string& what) {
  const Places places(rows[0]);
  const int columns = static_cast<int>(rows[0].tiles.size()), lines = static_cast<int>(rows.size());
  constexpr int kNarrowest = 640;  // room for the title
  cv::Mat sheet(places.top(lines) - kGap + kMargin, std::max(places.left(columns) - kGap + kMargin, kNarrowest),
                CV_8UC3, kPaper);
  const int room = sheet.cols - 2 * kMargin;
  draw_text(sheet, fitted(title, 13, room), {kMargin, 30}, {.height = 13, .colour = kInk});
  draw_text(sheet, fitted(what, 10, room), {kMargin, 58}, {.height = 10, .colour = kFaint});
  for (int column = 0; column < columns; ++column)
    draw_text(sheet, column == 0 ? "evaluation" : fmt::format("epoch {}", column),
              {places.left(column) + places.width / 2, kHead - 16},
              {.height = 10, .colour = kFaint, .anchor = TextStyle::Anchor::centre});
  for (int line = 0; line < lines; ++line) draw_row(sheet, places, rows[static_cast<size_t>(line)], line);
  return sheet;
}

// What epoch --epoch draws for sample --sample.
int run_explain(const AugmentCommand& c, const Dataset& data, const AugmentOptions& o) {
  check(o);
  const int64_t i = c.sample.value_or(0);
  if (i >= data.size())
    throw UsageError(fmt::format("--sample {}: '{}' has samples 0 to {}", i, printable(c.path), data.size() - 1));
  const int epoch = c.epoch.value_or(1);
  const PictureSize size = decode_sample(data, i, o, c.decode.options()).size;
  const std::vector<DrawnValues> drawn =
      explain(o, size.height, size.width, c.seed, static_cast<uint32_t>(epoch - 1), static_cast<uint64_t>(i));
  const std::string name = printable(data.name(i)), label = class_of(data, i);
  if (c.json) {
    nlohmann::ordered_json j{{"name", name},
                             {"class", label},
                             {"sample", i},
                             {"epoch", epoch},
                             {"seed", c.seed},
                             {"picture", {size.width, size.height}},
                             {"output", {o.width, o.height}}};
    // A policy may choose an operation twice.
    constexpr std::string_view kPolicy = "policy ";
    for (const DrawnValues& d : drawn)
      if (d.operation.starts_with(kPolicy))
        j["drawn"]["policy"].push_back({{d.operation.substr(kPolicy.size()), d.values}});
      else
        j["drawn"][d.operation] = d.values;
    fmt::print("{}\n", j.dump());
    return 0;
  }
  fmt::print("{} ({}), sample {} of epoch {}, seed {}\n{} x {} pixels as decoded, {} x {} for the network\n", name,
             label, i, epoch, c.seed, size.width, size.height, o.width, o.height);
  for (const DrawnValues& d : drawn)
    fmt::print("  {:<20}{}\n", d.operation,
               d.values.empty() ? d.operation.starts_with("policy ") ? "" : "none"
                                : fmt::format("{:.6g}", fmt::join(d.values, ", ")));
  return 0;
}

int run_augment(const AugmentCommand& c) {
  if (c.out.empty() && !c.explain) throw UsageError("augment needs --out FILE.png, or --explain");
  if (c.explain) {
    const auto data = open_dataset({c.path, c.format, Split::train, {.use = false}});
    return run_explain(c, *data, make_pipeline(find_model(c.model), *data, c.pictures, c.augment).training);
  }
  if (std::filesystem::path(c.out).extension() != ".png")
    throw UsageError("--out '" + c.out + "': expected a name that ends in .png");
  const ModelInfo model = find_model(c.model);
  const auto data = open_dataset({c.path, c.format, Split::train, {.use = false}});
  const Pipeline pipeline = make_pipeline(model, *data, c.pictures, c.augment);
  const auto context = c.device.make_context();
  const std::vector<Row> rows = make_rows(c, *context, *data, pipeline);
  const AugmentOptions& o = pipeline.training;
  const std::string what = describe(o);
  const std::string title =
      fmt::format("{} on {}, {} x {} pixels, seed {}", c.model, c.path, o.width, o.height, c.seed);
  write_png(c.out, draw_sheet(rows, drawable(printable(title)).value_or(c.model), what));
  fmt::print("{}: {} pictures as the first {} epochs show them: {}\n", c.out, rows.size(), c.variants, what);
  return 0;
}

}  // namespace

Subcommand add_augment(CLI::App& program) {
  FlagSet flags(program, "augment",
                "draw pictures of a data set beside their augmented versions, as training would see them");
  auto c = std::make_shared<AugmentCommand>();
  flags.group("Data");
  flags.option("--data-path,--data-dir", c->path, "a data set, as for convolt train").required();
  flags.option("--data-format", c->format, dataset_formats());
  c->decode.add(flags);
  flags.group("Network");
  flags.option("--model", c->model, "the network whose picture size and augmentation are the defaults");
  c->pictures.add(flags, true);
  c->augment.add(flags);
  flags.group("Output");
  flags.option("--out,--output", c->out, "the sheet, FILE.png");
  flags.option("--count", c->count, "pictures, one a row").check(between(1, 1000));
  flags.option("--variants", c->variants, "augmented versions of each").check(between(1, 100));
  flags.option("--seed", c->seed, "of the choice of pictures and of the augmentation");
  const Flag explain = flags.toggle("--explain", c->explain, "instead, say what is drawn for one picture in one epoch");
  flags.option("--sample", c->sample, "which picture, from 0 [0]").check(at_least(0)).needs(explain);
  flags.option("--epoch", c->epoch, "which epoch, from 1 [1]").check(at_least(1)).needs(explain);
  flags.toggle("--json", c->json, "what --explain says as one JSON object").needs(explain);
  flags.group("Device");
  flags.option("--device", c->device.device, "auto, cpu, cuda or cuda:N");
  add_config(flags);
  flags.footer(
      "Column 'epoch N' shows what epoch N of convolt train, with the same flags and seed, would show of the picture; "
      "'evaluation' is how validation sees it.\n\n"
      "Example:\n  convolt augment --data-path DATA --model resnet20 --rotate 15 --random-erase 0.3 --out sheet.png\n"
      "  convolt augment --data-path DATA --model resnet20 --rotate 15 --explain --sample 1234 --epoch 7");
  return {flags, [c] { return run_augment(*c); }};
}

}  // namespace convolt::cli
