#include "explain.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "augment/policy.h"
#include "data/loader_setup.h"
#include "data/render.h"
#include "data/shown_row.h"
#include "json_text.h"
#include "text_table.h"

namespace convolt::cli {
namespace {

using Json = nlohmann::ordered_json;
constexpr std::string_view kPolicy = "policy ";

struct Explanation {
  int64_t sample;
  int epoch;
  uint64_t seed;
  AugmentOptions pictures;  // of the epoch
  PictureSize decoded;
  // Where the epoch shows it, as far as that matters: without mixing, and where each picture is shown once, what is
  // drawn does not depend on it.
  bool placed;
  std::optional<ShownRow> row;
  std::vector<DrawnValues> drawn;

  bool shown() const { return row || !placed; }
};

Explanation explanation_of(const Dataset& data, const LoaderOptions& o, int64_t sample, int epoch) {
  check(o.augment);
  check(o.sizes, o.augment);
  const auto index = static_cast<uint32_t>(epoch - 1);
  Explanation e{sample, epoch, o.seed, pictures_of(o, index), {}, false, {}, {}};
  e.decoded = decode_sample(data, sample, o.augment, o.decode).size;
  e.placed = mixes(o.mixing) || o.sampler != Sampler::shuffle || o.repeats > 1;
  if (e.placed) {
    check(o, data);
    e.row = find_shown_row(data, o, index, sample);
  }
  if (e.shown())
    e.drawn = explain(e.pictures, e.decoded.height, e.decoded.width, o.seed, index,
                      e.row ? e.row->drawn_as : static_cast<uint64_t>(sample));
  return e;
}

std::string name_of(const RowMix& mix) { return mix.box[2] > 0 ? "cutmix" : "mixup"; }

Json mixing_json(const Dataset& data, const ShownRow& row) {
  if (row.partner < 0) return nullptr;
  Json j{{"operation", name_of(row.mix)}, {"part", row.mix.part}};
  if (row.mix.box[2] > 0) j["box"] = row.mix.box;
  j["partner"] = {
      {"sample", row.partner}, {"name", printable(data.name(row.partner))}, {"class", class_of(data, row.partner)}};
  return j;
}

void print_json(const Dataset& data, const LoaderOptions& o, const Explanation& e) {
  Json j{{"name", printable(data.name(e.sample))},
         {"class", class_of(data, e.sample)},
         {"sample", e.sample},
         {"epoch", e.epoch},
         {"seed", e.seed},
         {"picture", {e.decoded.width, e.decoded.height}},
         {"output", {e.pictures.width, e.pictures.height}},
         {"shown", e.shown()}};
  // A policy may choose an operation twice.
  for (const DrawnValues& d : e.drawn)
    if (d.operation.starts_with(kPolicy))
      j["drawn"]["policy"].push_back({{d.operation.substr(kPolicy.size()), d.values}});
    else
      j["drawn"][d.operation] = d.values;
  if (e.row) {
    j["batch"] = e.row->batch;
    j["row"] = e.row->row;
    if (mixes(o.mixing)) j["mixing"] = mixing_json(data, *e.row);
  }
  fmt::print("{}\n", json_text(j));
}

void print_line(const std::string& what, const std::string& value) { fmt::print("  {:<20}{}\n", what, value); }

void print_mixing(const Dataset& data, const ShownRow& row) {
  if (row.partner < 0) return print_line("mixing", "none");
  const int32_t* const box = row.mix.box;
  const std::string partner =
      fmt::format("sample {}, {} ({})", row.partner, printable(data.name(row.partner)), class_of(data, row.partner));
  print_line(name_of(row.mix), box[2] > 0
                                   ? fmt::format("{:.6g}, and in {}, {}, {}, {} {}", row.mix.part, box[0], box[1],
                                                 box[2], box[3], partner)
                                   : fmt::format("{:.6g}, and {:.6g} of {}", row.mix.part, 1 - row.mix.part, partner));
}

void print_text(const Dataset& data, const LoaderOptions& o, const Explanation& e) {
  fmt::print("{} ({}), sample {} of epoch {}, seed {}\n{} x {} pixels as decoded, {} x {} for the network\n",
             printable(data.name(e.sample)), class_of(data, e.sample), e.sample, e.epoch, e.seed, e.decoded.width,
             e.decoded.height, e.pictures.width, e.pictures.height);
  if (!e.shown()) return print_line("shown", "not in this epoch");
  for (const DrawnValues& d : e.drawn)
    print_line(d.operation, d.values.empty() ? d.operation.starts_with(kPolicy) ? "" : "none"
                                             : fmt::format("{:.6g}", fmt::join(d.values, ", ")));
  if (!e.row) return;
  print_line("row", fmt::format("{} of batch {}", e.row->row, e.row->batch));
  if (mixes(o.mixing)) print_mixing(data, *e.row);
}

}  // namespace

std::string class_of(const Dataset& data, int64_t sample) {
  return printable(data.class_names()[static_cast<size_t>(data.label(sample))]);
}

void explain_sample(const Dataset& data, const LoaderOptions& training, int64_t sample, int epoch, bool as_json) {
  const Explanation e = explanation_of(data, training, sample, epoch);
  as_json ? print_json(data, training, e) : print_text(data, training, e);
}

}  // namespace convolt::cli
