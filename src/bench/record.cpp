#include "bench/record.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "convolt/error.h"
#include "io/atomic_file.h"
#include "io/csv.h"
#include "io/json_reason.h"

namespace convolt::bench {
namespace {

using Json = nlohmann::ordered_json;

double per_second(double amount, const Timing& t, double ms) { return ms > 0 && !t.part ? amount * 1e3 / ms : 0; }

Json json_of(const Limit& limit, const std::string& unit) {
  return {{"how", limit.how}, {unit + "_best", limit.best / 1e9}, {unit + "_median", limit.median / 1e9}};
}

Json json_of(const Row& row, const Timing& t) {
  Json j{{"n", t.ms.n}, {"ms_median", t.ms.median}, {"ms_p10", t.ms.p10}, {"ms_p90", t.ms.p90}, {"ms_min", t.ms.min}};
  if (row.bytes > 0 && !t.part) j["gb_per_second"] = bytes_per_second(row, t) / 1e9;
  if (row.flops > 0 && !t.part) j["gflop_per_second"] = flops_per_second(row, t) / 1e9;
  if (row.images > 0 && !t.part) j["images_per_second"] = images_per_second(row, t);
  if (t.fraction > 0) j["fraction"] = t.fraction;
  if (t.chosen) j["chosen"] = true;
  return j;
}

Json json_of(const Row& row) {
  Json j{{"name", row.name}, {"dtype", row.dtype}, {"shape", row.shape}};
  if (row.bytes > 0) j["bytes"] = row.bytes;
  if (row.flops > 0) j["flops"] = row.flops;
  if (row.images > 0) j["images"] = row.images;
  if (row.memory > 0) j["memory"] = row.memory;
  if (row.count > 1) j["count"] = row.count;
  for (const Timing& t : row.timings) j["timings"][t.name] = json_of(row, t);
  return j;
}

Limit limit_from(const Json& j, const std::string& unit) {
  return {j.at("how"), 1e9 * j.at(unit + "_best").get<double>(), 1e9 * j.at(unit + "_median").get<double>()};
}

Row row_from(const Json& j) {
  Row row{.name = j.at("name"), .dtype = j.at("dtype"), .shape = j.at("shape")};
  row.bytes = j.value("bytes", int64_t{0});
  row.flops = j.value("flops", int64_t{0});
  row.images = j.value("images", 0.0);
  row.memory = j.value("memory", int64_t{0});
  row.count = j.value("count", 1);
  for (const auto& [name, t] : j.at("timings").items())
    row.timings.push_back({name,
                           {t.at("n"), t.at("ms_median"), t.at("ms_p10"), t.at("ms_p90"), t.at("ms_min")},
                           t.value("fraction", 0.0),
                           t.value("chosen", false)});
  return row;
}

Record record_from(const Json& j) {
  Record r{.version = j.at("convolt"),
           .benchmark = j.at("bench"),
           .device = j.at("device"),
           .provider = j.value("provider", ""),
           .threads = j.at("threads"),
           .last_cache_bytes = j.at("last_cache_bytes")};
  if (j.contains("copy")) r.copy = limit_from(j["copy"], "gb_per_second");
  if (j.contains("matmul")) r.matmul = limit_from(j["matmul"], "gflop_per_second");
  for (const Json& row : j.at("rows")) r.rows.push_back(row_from(row));
  return r;
}

}  // namespace

double bytes_per_second(const Row& row, const Timing& t) {
  return per_second(static_cast<double>(row.bytes), t, t.ms.min);
}
double flops_per_second(const Row& row, const Timing& t) {
  return per_second(static_cast<double>(row.flops), t, t.ms.min);
}
double images_per_second(const Row& row, const Timing& t) { return per_second(row.images, t, t.ms.median); }

const Timing& chosen_of(const Row& row) {
  const auto found = std::ranges::find_if(row.timings, [](const Timing& t) { return t.chosen; });
  return found != row.timings.end() ? *found : row.timings.front();
}

std::string to_json(const Record& r) {
  Json j{{"convolt", r.version}, {"bench", r.benchmark}, {"device", r.device}};
  if (!r.provider.empty()) j["provider"] = r.provider;
  j["threads"] = r.threads;
  j["last_cache_bytes"] = r.last_cache_bytes;
  if (r.copy.best > 0) j["copy"] = json_of(r.copy, "gb_per_second");
  if (r.matmul.best > 0) j["matmul"] = json_of(r.matmul, "gflop_per_second");
  // A row on a line: short to read, and a change of one shows as one.
  std::string text = j.dump(1);
  text.erase(text.size() - 2);  // "\n}"
  text += ",\n \"rows\": [";
  for (size_t i = 0; i < r.rows.size(); ++i) text += (i == 0 ? "\n  " : ",\n  ") + json_of(r.rows[i]).dump();
  return text + "\n ]\n}\n";
}

std::string to_csv(const Record& r) {
  std::string text =
      "name,dtype,shape,timing,bytes,flops,images,chosen,n,ms_median,ms_p10,ms_p90,ms_min,gb_per_second,"
      "gflop_per_second,images_per_second,fraction\n";
  for (const Row& row : r.rows)
    for (const Timing& t : row.timings)
      text += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n", csv_field(row.name), row.dtype,
                          csv_field(row.shape), csv_field(t.name), row.bytes, row.flops, row.images, t.chosen ? 1 : 0,
                          t.ms.n, t.ms.median, t.ms.p10, t.ms.p90, t.ms.min, bytes_per_second(row, t) / 1e9,
                          flops_per_second(row, t) / 1e9, images_per_second(row, t), t.fraction);
  return text;
}

Record read_record(const std::string& path) {
  constexpr int64_t kLargest = int64_t{64} << 20;
  const std::vector<uint8_t> bytes = read_file(path, kLargest);
  const Json j = Json::parse(bytes.begin(), bytes.end(), nullptr, /*allow_exceptions=*/false);
  if (!j.is_object() || !j.contains("bench"))
    throw DataError(fmt::format("'{}' is no record of convolt bench: expected what --output FILE.json writes", path));
  try {
    return record_from(j);
  } catch (const nlohmann::json::exception& e) {
    throw DataError(fmt::format("'{}' is no whole record of convolt bench: {}; write it again with --output FILE.json",
                                path, json_reason(e.what())));
  }
}

void check_comparable(const Record& before, const std::string& benchmark) {
  if (before.benchmark != benchmark)
    throw UsageError(fmt::format("records of two benchmarks cannot be compared: the earlier is of '{}', this of '{}'",
                                 before.benchmark, benchmark));
}

Comparison compare(const Record& before, const Record& now) {
  constexpr double kSmallest = 1.05;
  check_comparable(before, now.benchmark);
  std::map<std::tuple<std::string, std::string, std::string, std::string>, Summary> known;
  for (const Row& row : before.rows)
    for (const Timing& t : row.timings) known[{row.name, row.dtype, row.shape, t.name}] = t.ms;
  Comparison c;
  for (const Row& row : now.rows)
    for (const Timing& t : row.timings) {
      const auto found = known.find({row.name, row.dtype, row.shape, t.name});
      if (found == known.end()) {
        ++c.only_now;
        continue;
      }
      ++c.compared;
      const Change change{row.name, row.dtype, row.shape, t.name, found->second, t.ms};
      known.erase(found);
      if (change.now.p10 > change.before.p90 && change.ratio() > kSmallest) c.slower.push_back(change);
      if (change.now.p90 < change.before.p10 && change.ratio() < 1 / kSmallest) c.quicker.push_back(change);
    }
  c.only_before = static_cast<int>(known.size());
  if (c.compared == 0) throw UsageError("the two records have no timing in common: nothing can be compared");
  std::sort(c.slower.begin(), c.slower.end(), [](const Change& a, const Change& b) { return a.ratio() > b.ratio(); });
  std::sort(c.quicker.begin(), c.quicker.end(), [](const Change& a, const Change& b) { return a.ratio() < b.ratio(); });
  return c;
}

}  // namespace convolt::bench
