// Which data set, and which part of it.
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <optional>
#include <thread>

#include "count_line.h"
#include "flags.h"
#include "word_table.h"

namespace convolt::cli {
namespace {
const WordTable<Sampler> kSamplers{
    {"shuffle", Sampler::shuffle}, {"balanced", Sampler::balanced}, {"weighted", Sampler::weighted}};
const WordTable<Decoder> kDecoders{{"auto", Decoder::automatic}, {"cpu", Decoder::cpu}, {"nvjpeg", Decoder::nvjpeg}};
}  // namespace

void OrderFlags::add(FlagSet& flags) {
  flags
      .option("--sampler", sampler,
              "what an epoch shows: shuffle: each picture once; balanced: each class as often; weighted: at random by "
              "the list's weights")
      .check(name_in(kSamplers));
  flags
      .option("--repeats,--aug-repeats,--ra-reps", repeats,
              "each picture so often in a row, augmented anew; an epoch stays as long and shows that part of them")
      .check(at_least(1));
}

Sampler OrderFlags::sampling() const { return value_of(sampler, kSamplers); }

void DecoderFlag::add(FlagSet& flags) {
  flags
      .option(
          "--decoder", name,
          "what decodes JPEGs: cpu, or nvjpeg, which makes their pixels on the CUDA device, a little different from "
          "cpu's; auto is cpu")
      .check(name_in(kDecoders));
}

void LoaderMemoryFlag::add(FlagSet& flags) {
  flags
      .option("--loader-memory", size,
              "host memory for batches on their way, such as 2G, of training and validation each: 3 of them, or 2 "
              "where no more fit [any number]")
      .check(size_rule());
}

int64_t LoaderMemoryFlag::bytes() const { return size ? *to_bytes(*size) : 0; }

Decoder DecoderFlag::decoder() const { return value_of(name, kDecoders); }

std::string DecoderFlag::resolved() const { return name == "auto" ? "cpu" : name; }

void DataFlags::add(FlagSet& flags, bool training) {
  flags.group("Data");
  flags
      .option("--data-path,--data-dir", path,
              "image folder (train/<class>/*, val/<class>/*), a tar or zip of one, packed set, WebDataset shards, list "
              "of pictures (CSV, TSV, JSON lines), CIFAR-10 or CIFAR-100 records, NumPy or IDX files; found out by "
              "looking")
      .required();
  flags.option("--val-data-path", validation_path, "data set to validate on, when it lies elsewhere");
  Flag split = flags
                   .option("--val-split", validation_split,
                           "part of the training pictures, of each class alike, that is kept for validation; a "
                           "validation set of the data's own is then not used")
                   .check(between(0, 1))
                   .hide_default();
  split.excludes(flags.find("--val-data-path"));
  flags.option("--val-split-seed", split_seed, "which of them");
  flags
      .option("--limit", limit,
              training ? "train on so many pictures, of each class alike" : "use so many pictures, of each class alike")
      .check(at_least(1))
      .hide_default();
  flags.option("--fraction", fraction, "the same as a part of all").check(between(0, 1)).hide_default();
  flags.option("--data-format", format, dataset_formats());
  add_no_index(flags, no_index);
  flags.option("-b,--batch-size", batch, "pictures in a batch").check(at_least(1));
  flags.option("-j,--workers", workers, "decode threads, 0 for as many as cores").check(at_least(0));
  decode.add(flags);
  decoder.add(flags);
  memory.add(flags);
  if (!training) return;
  order.add(flags);
  flags.toggle("--resident", resident, "decode all pictures once and keep them in device memory");
}

int DataFlags::worker_count() const { return threads_or_cores(workers); }

// The parts that --val-split makes of the training set.
DataParts DataFlags::split() const {
  const std::shared_ptr<const Dataset> all = open_whole(path, Split::train);
  std::vector<int64_t> kept =
      stratified_sample(*all, std::llround(static_cast<double>(all->size()) * validation_split), split_seed);
  if (kept.empty() || static_cast<int64_t>(kept.size()) == all->size())
    throw UsageError(
        fmt::format("--val-split {} of {} pictures leaves none on one side", validation_split, all->size()));
  std::vector<int64_t> others;
  for (int64_t i = 0; i < all->size(); ++i)
    if (!std::binary_search(kept.begin(), kept.end(), i)) others.push_back(i);
  return {subset(all, std::move(others)), subset(all, std::move(kept))};
}

std::unique_ptr<Dataset> DataFlags::open(Split part) const {
  if (part == Split::validation && !validation_path.empty()) {
    auto set = open_whole(validation_path, Split::validation);
    return set ? std::move(set) : open_whole(validation_path, Split::train);
  }
  if (validation_split <= 0) return open_whole(path, part);
  DataParts parts = split();
  return std::move(part == Split::train ? parts.training : parts.validation);
}

DataParts DataFlags::open_parts() const {
  if (validation_split > 0) return split();
  return {open(Split::train), open(Split::validation)};
}

std::unique_ptr<Dataset> DataFlags::open_whole(const std::string& from, Split part) const {
  return open_indexed({from, format, part}, no_index, worker_count());
}

std::unique_ptr<Dataset> DataFlags::limited(std::unique_ptr<Dataset> data) const {
  if (!data || (limit == 0 && fraction >= 1)) return data;
  int64_t count = std::llround(static_cast<double>(data->size()) * fraction);
  if (limit > 0) count = std::min(count, limit);
  if (count == 0) throw UsageError(fmt::format("--fraction {} of {} pictures is none", fraction, data->size()));
  std::vector<int64_t> samples = stratified_sample(*data, count, 0);
  return subset(std::move(data), std::move(samples));
}

void DecodeFlags::add(FlagSet& flags) {
  flags
      .option("--max-side", options_.max_side,
              "pictures are shrunk to at most this while decoding, 0 for 8 x the network's input, of whose size their "
              "shorter side then stays")
      .check(at_least(0));
  add_max_pixels(flags, options_.max_pixels);
  flags.toggle("--full-decode", options_.full_decode,
               "decode JPEGs at their full size even where the crop has twice the pixels that the network sees; else "
               "at 1/2, 1/4 or 1/8");
  flags
      .option(
          "--background", background_,
          "what shows through transparent pixels, R,G,B in 0..1, or one grey [the colours that they have themselves]")
      .delimiter(',')
      .expected(1, 3);
}

DecodeOptions DecodeFlags::options() const {
  DecodeOptions options = options_;
  if (background_.empty()) return options;
  if (background_.size() == 2) throw UsageError("--background takes one value or three, found 2");
  Background colour;
  for (size_t c = 0; c < 3; ++c) {
    const float level = background_[background_.size() == 1 ? 0 : c];
    if (!(level >= 0 && level <= 1))
      throw UsageError(fmt::format("--background: expected levels in 0..1, found {}", level));
    colour[c] = static_cast<uint8_t>(std::lround(255 * level));
  }
  options.background = colour;
  return options;
}

void DecodeFlags::follow(const FlagSet& flags, const ModelCard& card) {
  take_from_run(flags, card, "max-side", options_.max_side);
  take_from_run(flags, card, "max-pixels", options_.max_pixels);
  take_from_run(flags, card, "full-decode", options_.full_decode);
  take_from_run(flags, card, "background", background_);
}

void add_max_pixels(FlagSet& flags, int64_t& max_pixels) {
  flags
      .option("--max-pixels", max_pixels,
              "a picture whose header declares more counts as unreadable, before anything is allocated for it")
      .check(at_least(1));
}

void add_no_index(FlagSet& flags, bool& no_index) {
  flags.toggle("--no-index", no_index,
               "list the data set and read the headers of its pictures anew, and keep nothing of them in the cache");
}

std::unique_ptr<Dataset> open_indexed(const DatasetOptions& options, bool no_index, int threads) {
  constexpr std::chrono::milliseconds kQuick{500};
  const auto start = std::chrono::steady_clock::now();
  std::optional<CountLine> line;
  DatasetOptions indexed = options;
  indexed.index = {!no_index, threads, [&](int64_t done, int64_t all) {
                     if (!line && std::chrono::steady_clock::now() - start > kQuick)
                       line.emplace("indexing", all, false);
                     if (line) line->at(done);
                   }};
  return open_dataset(indexed);
}

}  // namespace convolt::cli
