// Lists of pictures: a line for each, as CSV, tab-separated values or JSON lines.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "convolt/error.h"
#include "data/folder_scan.h"
#include "data/index_cache.h"
#include "data/sources.h"
#include "data/split_names.h"
#include "io/atomic_file.h"
#include "io/csv.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

enum Column : uint8_t { kPath, kLabel, kSplit, kWeight, kColumns };
// What a column may be called, in lower case. Of several that are there the first counts, where it has a value;
// messages use the first name.
constexpr std::array<std::array<std::string_view, 7>, kColumns> kNames{
    {{"path", "file", "filename", "file_name", "filepath", "image", "image_path"},
     {"label", "class", "target", "category", "class_name", "label_name", "label"},
     {"split", "set", "subset", "partition", "split", "split", "split"},
     {"weight", "sample_weight", "weight", "weight", "weight", "weight", "weight"}}};

struct Meaning {
  size_t column, rank;  // in kNames
};
std::optional<Meaning> meaning_of(std::string_view written) {
  const std::string name = lower_case(written);
  for (size_t c = 0; c < kColumns; ++c)
    if (const auto found = std::ranges::find(kNames[c], name); found != kNames[c].end())
      return Meaning{c, static_cast<size_t>(found - kNames[c].begin())};
  return std::nullopt;
}

enum class Form : uint8_t { csv, tsv, json_lines };

// By the name, else by what the first line looks like; nothing for other files.
std::optional<Form> form_of(const fs::path& path) {
  const std::string extension = path.extension().string();
  if (extension == ".csv") return Form::csv;
  if (extension == ".tsv") return Form::tsv;
  if (extension == ".jsonl" || extension == ".ndjson") return Form::json_lines;
  std::array<uint8_t, 512> head{};
  const size_t got = InputFile(path).read(0, head);
  const std::string_view text(reinterpret_cast<const char*>(head.data()), got);
  if (text.starts_with("{\"")) return Form::json_lines;
  const std::string_view line = text.substr(0, text.find_first_of("\r\n"));
  for (const auto& [separator, form] : {std::pair{'\t', Form::tsv}, {',', Form::csv}})
    if (line.find(separator) != line.npos && meaning_of(line.substr(0, line.find(separator)))) return form;
  return std::nullopt;
}

using Values = std::array<std::string_view, kColumns>;

Split split_of(std::string_view name) {
  if (name.empty()) return Split::train;
  if (const auto split = split_called(name)) return *split;
  throw FormatError("the split '" + std::string(name) + "', expected train, val, validation or test");
}

float weight_of(std::string_view text) {
  float weight = 1;
  if (text.empty()) return weight;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), weight);
  if (error != std::errc() || end != text.data() + text.size() || !(weight > 0) || !std::isfinite(weight))
    throw FormatError("the weight '" + std::string(text) + "', expected a number above 0");
  return weight;
}

// Numbers for labels, in the order in which these first occur.
class Labels {
public:
  int32_t number(std::string_view label) {
    auto found = numbers_.find(label);
    if (found == numbers_.end()) found = numbers_.emplace(label, static_cast<int32_t>(numbers_.size())).first;
    return found->second;
  }
  const auto& all() const { return numbers_; }

private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view label) const { return std::hash<std::string_view>()(label); }
  };
  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> numbers_;
};

struct Sample {
  int32_t label;
  float weight;
};

// What a list says of one split.
struct Listing {
  Split split;
  Labels labels;  // of all splits
  NameList paths;
  std::vector<Sample> samples;  // whose labels are numbers of `labels`

  void add(const Values& values) {
    if (values[kPath].empty()) throw FormatError("no path");
    if (values[kPath].find('\0') != values[kPath].npos) throw FormatError("a NUL byte in its path");
    if (values[kLabel].empty()) throw FormatError("no label");
    const Split of = split_of(values[kSplit]);
    const Sample sample{labels.number(values[kLabel]), weight_of(values[kWeight])};
    if (of != split) return;
    paths.add(values[kPath]);
    samples.push_back(sample);
  }
};

// Which fields of a record may have what, the first name first.
using Header = std::array<std::vector<size_t>, kColumns>;
Header header_of(const std::vector<std::string>& fields) {
  Header where;
  for (size_t rank = 0; rank < kNames[0].size(); ++rank)
    for (size_t i = 0; i < fields.size(); ++i)
      if (const auto is = meaning_of(fields[i]); is && is->rank == rank) where[is->column].push_back(i);
  if (where[kPath].empty() || where[kLabel].empty())
    throw FormatError("no header; expected one that names the columns, at least path and label, as 'path,label'");
  return where;
}

void read_table(std::string_view text, char separator, Listing& listing) {
  std::optional<Header> where;
  size_t columns = 0;
  read_csv(text, separator, [&](int64_t line, std::vector<std::string>& fields) {
    try {
      if (!where) {
        where = header_of(fields);
        columns = fields.size();
        return;
      }
      if (fields.size() != columns)
        throw FormatError(std::to_string(fields.size()) + " fields, expected " + std::to_string(columns) +
                          " as in the header");
      Values values;
      for (size_t c = 0; c < kColumns; ++c)
        for (const size_t i : (*where)[c])
          if (values[c].empty()) values[c] = fields[i];
      listing.add(values);
    } catch (const FormatError& error) {
      throw FormatError("line " + std::to_string(line) + ": has " + error.what());
    }
  });
}

bool is_empty(const nlohmann::json& value) {
  return value.is_null() || (value.is_string() && value.get_ref<const std::string&>().empty());
}

// A value as text; numbers keep their digits.
std::string text_of(const nlohmann::json& value, const std::string& key) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number()) return value.dump();
  throw FormatError("a value of '" + key + "' that is neither text nor a number; several labels are not supported");
}

std::array<std::string, kColumns> values_of(const nlohmann::json& object) {
  std::array<nlohmann::json::const_iterator, kColumns> found;
  found.fill(object.end());
  std::array<size_t, kColumns> ranks{};
  for (auto item = object.begin(); item != object.end(); ++item) {
    const auto is = meaning_of(item.key());
    if (!is || is_empty(*item)) continue;
    auto& best = found[is->column];
    if (best != object.end() && ranks[is->column] <= is->rank) continue;
    best = item;
    ranks[is->column] = is->rank;
  }
  std::array<std::string, kColumns> values;
  for (size_t c = 0; c < kColumns; ++c)
    if (found[c] != object.end()) values[c] = text_of(*found[c], found[c].key());
  return values;
}

void read_json_lines(std::string_view text, Listing& listing) {
  for (int64_t line = 1; !text.empty(); ++line) {
    const size_t stop = text.find('\n');
    const std::string_view record = text.substr(0, stop);
    text.remove_prefix(stop == text.npos ? text.size() : stop + 1);
    if (record.find_first_not_of(" \t\r") == record.npos) continue;
    try {
      const auto json = nlohmann::json::parse(record, nullptr, false);
      if (!json.is_object()) throw FormatError("no JSON object");
      const std::array<std::string, kColumns> values = values_of(json);
      listing.add({values[kPath], values[kLabel], values[kSplit], values[kWeight]});
    } catch (const FormatError& error) {
      throw FormatError("line " + std::to_string(line) + ": has " + error.what());
    }
  }
}

Listing read_listing(const fs::path& path, Split split) {
  const std::optional<Form> form = form_of(path);
  constexpr int64_t kLargest = int64_t{1} << 30;  // bytes
  const std::vector<uint8_t> file = read_file(path.string(), kLargest);
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  try {
    Listing listing{.split = split};
    if (form == Form::json_lines)
      read_json_lines(text, listing);
    else
      read_table(text, form == Form::tsv ? '\t' : ',', listing);
    if (listing.labels.all().empty()) throw FormatError("lists no pictures");
    return listing;
  } catch (const FormatError& error) {
    throw FormatError(path.string() + ": " + error.what());
  }
}

// The number that all labels are one of, else nothing. Tables that had a gap write them as 7.0.
std::optional<int32_t> number_of(std::string_view label) {
  constexpr int32_t kMost = 1 << 20;
  int32_t number = 0;
  if (const size_t dot = label.find('.');
      dot != label.npos && dot + 1 < label.size() && label.find_first_not_of('0', dot + 1) == label.npos)
    label = label.substr(0, dot);
  const auto [end, error] = std::from_chars(label.data(), label.data() + label.size(), number);
  const bool whole = error == std::errc() && end == label.data() + label.size();
  return whole && number >= 0 && number < kMost && std::to_string(number) == label ? std::optional(number)
                                                                                   : std::nullopt;
}

// The class of each label, by its number. Labels that are all numbers are the indices themselves; else they are names,
// sorted bytewise.
std::vector<int32_t> classes_of(const Labels& labels, std::vector<std::string>& names) {
  const std::map<std::string, int32_t> sorted(labels.all().begin(), labels.all().end());
  std::vector<int32_t> classes(sorted.size());
  if (std::ranges::all_of(sorted, [](const auto& label) { return number_of(label.first).has_value(); })) {
    int32_t most = 0;
    for (const auto& [label, number] : sorted)
      most = std::max(most, classes[static_cast<size_t>(number)] = *number_of(label));
    for (int32_t c = 0; c <= most; ++c) names.push_back(std::to_string(c));
    return classes;
  }
  for (const auto& [label, number] : sorted) {
    classes[static_cast<size_t>(number)] = static_cast<int32_t>(names.size());
    names.push_back(label);
  }
  return classes;
}

class Manifest final : public Dataset {
public:
  Manifest(fs::path folder, NamedFiles files, std::vector<std::string> class_names, std::vector<Sample> samples)
      : folder_(std::move(folder)), files_(std::move(files)), samples_(std::move(samples)) {
    class_names_ = std::move(class_names);
  }

  int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
  int32_t label(int64_t i) const override { return at(i).label; }
  float weight(int64_t i) const override { return at(i).weight; }
  std::string name(int64_t i) const override { return path(i).string(); }
  std::string describe() const override { return "list of pictures"; }
  RawSample read(int64_t i) const override { return read_picture_file(path(i)); }
  bool reads_parts() const override { return true; }
  size_t read_part(int64_t i, int64_t offset, std::span<uint8_t> into) const override {
    return read_picture_part(path(i), offset, into);
  }
  std::optional<PictureExtent> extent(int64_t i) const override {
    if (!files_.index.measured()) return std::nullopt;
    return PictureExtent{file(i).height, file(i).width};
  }

private:
  const Sample& at(int64_t i) const { return samples_[static_cast<size_t>(i)]; }
  const IndexedFile& file(int64_t i) const { return files_.index.files()[files_.places[static_cast<size_t>(i)]]; }
  fs::path path(int64_t i) const { return folder_ / files_.index.name(file(i)); }

  fs::path folder_;
  NamedFiles files_;
  std::vector<Sample> samples_;
};

}  // namespace

bool is_manifest(const fs::path& path) { return form_of(path).has_value(); }

std::unique_ptr<Dataset> open_manifest(const fs::path& path, Split split, const IndexOptions& options, int64_t now) {
  if (fs::is_directory(path)) throw DataError(path.string() + ": is a folder; a list of pictures was expected");
  Listing listing = read_listing(path, split);
  if (listing.samples.empty()) return nullptr;
  std::vector<std::string> class_names;
  const std::vector<int32_t> classes = classes_of(listing.labels, class_names);
  for (Sample& sample : listing.samples) sample.label = classes[static_cast<size_t>(sample.label)];
  const fs::path index = options.use ? index_path(path, split == Split::train ? "train" : "val") : fs::path();
  const fs::path folder = path.parent_path();
  return std::make_unique<Manifest>(folder, scan_files(folder, listing.paths, index, options, now),
                                    std::move(class_names), std::move(listing.samples));
}

}  // namespace convolt
