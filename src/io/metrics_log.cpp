#include "io/metrics_log.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <string_view>

namespace convolt {
namespace {

bool object_is_at_most(std::string_view line, int64_t step, const std::string& without) {
  const auto object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return false;
  const auto found = object.find("step");
  if (found == object.end() || !found->is_number_integer() || found->get<int64_t>() > step) return false;
  return found->get<int64_t>() < step || without.empty() || !object.contains(without);
}

bool row_is_at_most(std::string_view line, int64_t step) {
  int64_t found = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), found);
  return error == std::errc() && end != line.data() + line.size() && *end == ',' && found <= step;
}

// The whole lines of which `keeps` holds.
std::string lines_of(std::string_view text, const std::function<bool(std::string_view)>& keeps) {
  std::string kept;
  for (size_t end; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1))
    if (keeps(text.substr(0, end))) kept += text.substr(0, end + 1);
  return kept;
}

std::string heading(const std::vector<std::string>& columns) { return fmt::format("{}\n", fmt::join(columns, ",")); }

std::string cell(const nlohmann::ordered_json& object, const std::string& column) {
  const auto found = object.find(column);
  if (found == object.end()) return "";
  if (found->is_boolean()) return found->get<bool>() ? "1" : "0";
  if (found->is_number_integer()) return std::to_string(found->get<int64_t>());
  const auto value = found->get<double>();
  return std::isfinite(value) ? fmt::format("{}", value) : "";
}

}  // namespace

MetricsLog MetricsLog::create(std::string path) { return MetricsLog(AppendFile::create(std::move(path))); }

MetricsLog MetricsLog::resume(std::string path, int64_t step, const std::string& without) {
  return MetricsLog(AppendFile::resume(std::move(path), [&](std::string_view text) {
    return lines_of(text, [&](std::string_view line) { return object_is_at_most(line, step, without); });
  }));
}

void MetricsLog::append(const nlohmann::ordered_json& object) {
  file_.append(object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n');
}

MetricsTable MetricsTable::create(std::string path, std::vector<std::string> columns) {
  MetricsTable table(AppendFile::create(std::move(path)), std::move(columns));
  table.file_.append(heading(table.columns_));
  return table;
}

MetricsTable MetricsTable::resume(std::string path, std::vector<std::string> columns, int64_t step) {
  AppendFile file = AppendFile::resume(std::move(path), [&](std::string_view text) {
    return heading(columns) + lines_of(text, [&](std::string_view line) { return row_is_at_most(line, step); });
  });
  return {std::move(file), std::move(columns)};
}

void MetricsTable::append(const nlohmann::ordered_json& object) {
  std::vector<std::string> cells;
  for (const std::string& column : columns_) cells.push_back(cell(object, column));
  file_.append(fmt::format("{}\n", fmt::join(cells, ",")));
}

}  // namespace convolt
