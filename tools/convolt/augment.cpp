#include <fmt/format.h>

#include <filesystem>
#include <opencv2/imgproc.hpp>

#include "augment/policy.h"
#include "commands.h"
#include "data/render.h"
#include "data/sampler.h"
#include "drawing.h"
#include "explain.h"
#include "flags.h"
#include "text_table.h"

namespace convolt::cli {
namespace {

struct AugmentCommand {
  DeviceFlags device;
  std::string path, format = "auto", model = "resnet18", out;
  DecodeFlags decode;
  PictureFlags pictures;
  RampFlags ramp;
  AugmentFlags augment;
  MixFlags mixing;
  OrderFlags order;
  int count = 8, variants = 6, batch = 128, accumulate = 1;
  uint64_t seed = 0;
  std::optional<int> sample, epoch;
  bool explain = false, json = false;
};

// One picture of the data set: as evaluation sees it, then as each epoch does.
struct SheetRow {
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

SheetRow make_row(const AugmentCommand& c, Context& context, const Dataset& data, const Pipeline& pipeline,
                  int64_t sample) {
  const AugmentOptions &seen = pipeline.evaluation, &trained = pipeline.training;
  SheetRow row;
  row.label = class_of(data, sample);
  row.file = printable(std::filesystem::path(data.name(sample)).filename().string());
  const uint32_t first = 0;
  const std::vector<uint8_t> original =
      render(context, decode_sample(data, sample, seen, c.decode.options()), seen, c.seed, sample, {&first, 1});
  row.tiles.push_back(bgr_of(original.data(), seen.height, seen.width, seen.channels));
  const DecodedPicture picture = decode_sample(data, sample, trained, c.decode.options());
  for (uint32_t epoch = 0; epoch < static_cast<uint32_t>(c.variants); ++epoch) {
    const AugmentOptions o = at_epoch(trained, c.ramp.options(), epoch);
    const std::vector<uint8_t> variant = render(context, picture, o, c.seed, sample, {&epoch, 1});
    row.tiles.push_back(bgr_of(variant.data(), o.height, o.width, o.channels));
  }
  return row;
}

// The first pictures of the order that the seed draws; those that cannot be read are named and left out.
std::vector<SheetRow> make_rows(const AugmentCommand& c, Context& context, const Dataset& data,
                                const Pipeline& pipeline) {
  const Permutation order(data.size(), c.seed, 0);
  std::vector<SheetRow> rows;
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

constexpr int kGap = 8, kMargin = 24, kNames = 170, kHead = 112;

// Where the tiles lie; small ones are enlarged by a whole number, so that pixels stay squares.
struct Places {
  int times = 1, height = 0, width = 0;

  explicit Places(const SheetRow& row) {
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

void draw_row(cv::Mat& sheet, const Places& places, const SheetRow& row, int line) {
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

cv::Mat draw_sheet(const std::vector<SheetRow>& rows, const std::string& title, const std::string& what) {
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

// As the training of these flags.
LoaderOptions loader_options(const AugmentCommand& c, const AugmentOptions& training) {
  LoaderOptions o;
  o.batch = c.batch;
  o.group = c.accumulate;
  o.sampler = c.order.sampling();
  o.repeats = c.order.repeats;
  o.seed = c.seed;
  o.decode = c.decode.options();
  o.augment = training;
  o.sizes = c.ramp.options();
  o.mixing = c.mixing.options();
  return o;
}

// A path's last name: a title has no room for more.
std::string name_of_data(const std::string& path) {
  const auto whole = std::filesystem::absolute(path).lexically_normal();
  return (whole.has_filename() ? whole : whole.parent_path()).filename().string();
}

int run_explain(const AugmentCommand& c, const Dataset& data, const AugmentOptions& training) {
  const int64_t sample = c.sample.value_or(0);
  if (sample >= data.size())
    throw UsageError(fmt::format("--sample {}: '{}' has samples 0 to {}", sample, printable(c.path), data.size() - 1));
  explain_sample(data, loader_options(c, training), sample, c.epoch.value_or(1), c.json);
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
  check(c.ramp.options(), pipeline.training);
  const auto context = c.device.make_context();
  const std::vector<SheetRow> rows = make_rows(c, *context, *data, pipeline);
  const AugmentOptions& o = pipeline.training;
  const std::string what = describe(o) + (mixes(c.mixing.options()) ? ", before mixing" : "");
  const std::string title =
      fmt::format("{} on {}, {} x {} pixels, seed {}", c.model, name_of_data(c.path), o.width, o.height, c.seed);
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
  flags.option("-b,--batch-size", c->batch, "pictures in a batch, as --explain says who is mixed with whom")
      .check(at_least(1));
  flags
      .option("--accum,--grad-accum-steps", c->accumulate, "batches of an update, of which an epoch has a whole number")
      .check(at_least(1));
  c->order.add(flags);
  flags.group("Network");
  flags.option("--model", c->model, "the network whose picture size and augmentation are the defaults");
  c->pictures.add(flags, true);
  c->ramp.add(flags);
  c->augment.add(flags);
  c->mixing.add(flags);
  flags.group("Output");
  const Flag out = flags.option("--out,--output", c->out, "the sheet, FILE.png");
  const Flag count = flags.option("--count", c->count, "pictures, one a row").check(between(1, 1000));
  const Flag variants = flags.option("--variants", c->variants, "augmented versions of each").check(between(1, 100));
  flags.option("--seed", c->seed, "of the choice of pictures and of the augmentation");
  Flag explain = flags.toggle("--explain", c->explain, "instead, say what is drawn for one picture in one epoch");
  explain.excludes(out).excludes(count).excludes(variants);
  flags.option("--sample", c->sample, "which picture, from 0 [0]").check(at_least(0)).needs(explain);
  flags.option("--epoch", c->epoch, "which epoch, from 1 [1]").check(at_least(1)).needs(explain);
  flags.toggle("--json", c->json, "what --explain says as one JSON object").needs(explain);
  flags.group("Device");
  flags.option("--device", c->device.device, "auto, cpu, cuda or cuda:N");
  add_config(flags);
  add_recipe(flags);
  flags.footer(
      "Column 'epoch N' shows what epoch N of convolt train, with the same flags and seed, would show of the picture; "
      "'evaluation' is how validation sees it. The sheet shows pictures before they are mixed; --explain says what is "
      "mixed into the row of the sample, if every picture of its batch can be read.\n\n"
      "Example:\n  convolt augment --data-path DATA --model resnet20 --rotate 15 --random-erase 0.3 --out sheet.png\n"
      "  convolt augment --data-path DATA --model resnet20 --rotate 15 --explain --sample 1234 --epoch 7");
  return {flags, [c] { return run_augment(*c); }};
}

}  // namespace convolt::cli
