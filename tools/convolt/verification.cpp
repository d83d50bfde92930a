#include "verification.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>

#include "text_table.h"

namespace convolt::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string colour_of(const Examined& e, int raw_channels) {
  if (!e.header) return raw_channels == 1 ? "grey" : "RGB";
  const PictureHeader& h = *e.header;
  const std::string deep = h.bits > 8 * h.channels ? ", 16 bits" : "";
  switch (h.channels) {
    case 1:
      return "grey or palette" + deep;
    case 2:
      return "grey with alpha" + deep;
    case 3:
      return "RGB" + deep;
    default:
      return (h.format == PictureFormat::jpeg ? "CMYK" : "RGB with alpha") + deep;
  }
}

std::vector<std::pair<std::string, int64_t>> most_frequent_first(const std::map<std::string, int64_t>& counts) {
  std::vector<std::pair<std::string, int64_t>> sorted(counts.begin(), counts.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  return sorted;
}

Spread spread_of(std::vector<int64_t> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  return {values.front(), values[values.size() / 2], values.back()};
}

std::string listed(const std::vector<std::pair<std::string, int64_t>>& counts) {
  std::string text;
  for (const auto& [name, count] : counts) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, count);
  return text.empty() ? "-" : text;
}

std::string text_of(const Spread& s) { return fmt::format("{} / {} / {}", s.least, s.median, s.most); }

// "and 7 more" behind a list that was cut.
std::string rest(size_t all, size_t shown) {
  return all > shown ? fmt::format("  and {} more\n", all - shown) : std::string();
}

std::string balance(const Verification& v, const PartFigures& f) {
  std::vector<size_t> order(f.per_class.size());
  for (size_t c = 0; c < order.size(); ++c) order[c] = c;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return f.per_class[a] > f.per_class[b]; });
  if (order.empty()) return "-";
  const auto one = [&](size_t c) { return fmt::format("{} {}", printable(v.classes[c]), f.per_class[c]); };
  return one(order.front()) + " .. " + one(order.back());
}

}  // namespace

bool Verification::leaks(const std::vector<SampleOf>& group) const {
  return std::any_of(group.begin(), group.end(), [&](const SampleOf& s) { return s.set != group[0].set; });
}
bool Verification::disagrees(const std::vector<SampleOf>& group) const {
  return std::any_of(group.begin(), group.end(), [&](const SampleOf& s) { return at(s).label != at(group[0]).label; });
}
int64_t Verification::broken() const {
  int64_t n = 0;
  for (const VerifiedPart& p : parts)
    n += std::count_if(p.samples.begin(), p.samples.end(), [](const Examined& e) { return !e.problem.empty(); });
  return n;
}
std::string Verification::class_of(int32_t label) const {
  return label >= 0 && static_cast<size_t>(label) < classes.size() ? classes[static_cast<size_t>(label)] : "-";
}

PartFigures figures_of(const VerifiedPart& part, size_t classes) {
  PartFigures f;
  f.pictures = static_cast<int64_t>(part.samples.size());
  f.per_class.resize(classes);
  std::map<std::string, int64_t> formats, colours;
  std::vector<int64_t> widths, heights;
  for (const Examined& e : part.samples) {
    f.bytes += e.bytes;
    f.broken += e.problem.empty() ? 0 : 1;
    if (e.label >= 0 && static_cast<size_t>(e.label) < classes) ++f.per_class[static_cast<size_t>(e.label)];
    if (e.width == 0) continue;
    f.turned += e.header && e.header->orientation != 1 ? 1 : 0;
    ++formats[e.header ? std::string(name_of(e.header->format)) : "raw pixels"];
    ++colours[colour_of(e, part.data->channels())];
    widths.push_back(e.width);
    heights.push_back(e.height);
  }
  f.formats = most_frequent_first(formats);
  f.colours = most_frequent_first(colours);
  f.width = spread_of(std::move(widths));
  f.height = spread_of(std::move(heights));
  return f;
}

std::string verification_text(const Verification& v, int most) {
  constexpr size_t kMembers = 8;  // of a group of equal files
  const auto shown = static_cast<size_t>(most);
  std::string text = fmt::format("{}: {}, {} classes\n\n", printable(v.path), v.format, v.classes.size());
  for (const VerifiedPart& part : v.parts) {
    const PartFigures f = figures_of(part, v.classes.size());
    text += fmt::format("{}: {} pictures, {:.1f} MB, {} broken\n", part.name, f.pictures,
                        static_cast<double>(f.bytes) / 1e6, f.broken);
    text += fmt::format("  formats  {}\n  colours  {}\n  width    {}\n  height   {}  (least / median / most)\n",
                        listed(f.formats), listed(f.colours), text_of(f.width), text_of(f.height));
    if (f.turned > 0) text += fmt::format("  turned   {}, by their Exif orientation\n", f.turned);
    text += fmt::format("  classes  {}\n", balance(v, f));
  }
  if (const int64_t broken = v.broken(); broken > 0) {
    text += fmt::format("\nbroken: {}\n", broken);
    size_t k = 0;
    for (const VerifiedPart& part : v.parts)
      for (size_t i = 0; i < part.samples.size(); ++i)
        if (!part.samples[i].problem.empty() && k++ < shown)
          text += fmt::format("  {}: {}\n", printable(part.data->name(static_cast<int64_t>(i))),
                              printable(part.samples[i].problem));
    text += rest(static_cast<size_t>(broken), shown);
  }
  if (v.identical.empty()) return text;
  const auto count = [&](auto is) { return std::count_if(v.identical.begin(), v.identical.end(), is); };
  text += fmt::format("\nthe same file: {} times; in both parts {}, of several classes {}\n", v.identical.size(),
                      count([&](const auto& g) { return v.leaks(g); }),
                      count([&](const auto& g) { return v.disagrees(g); }));
  for (size_t k = 0; k < std::min(shown, v.identical.size()); ++k) {
    const auto& group = v.identical[k];
    std::string names;
    for (const SampleOf& s : std::span(group).first(std::min(group.size(), kMembers)))
      names += (names.empty() ? "" : " = ") + printable(v.name_of(s));
    if (group.size() > kMembers) names += fmt::format(" and {} more", group.size() - kMembers);
    text += fmt::format("  {}{}{}\n", names, v.leaks(group) ? "  (in both parts)" : "",
                        v.disagrees(group) ? "  (of several classes)" : "");
  }
  return text + rest(v.identical.size(), shown);
}

Json verification_json(const Verification& v) {
  const auto spread = [](const Spread& s) { return Json{{"least", s.least}, {"median", s.median}, {"most", s.most}}; };
  const auto counts = [](const auto& list) {
    Json j = Json::object();
    for (const auto& [name, count] : list) j[name] = count;
    return j;
  };
  const auto sample = [&](const SampleOf& s) {
    return Json{{"part", v.parts[s.set].name}, {"name", v.name_of(s)}, {"class", v.class_of(v.at(s).label)}};
  };
  Json j{{"path", v.path},
         {"format", v.format},
         {"parts", Json::object()},
         {"broken", Json::array()},
         {"identical", Json::array()}};
  for (size_t p = 0; p < v.parts.size(); ++p) {
    const PartFigures f = figures_of(v.parts[p], v.classes.size());
    Json per_class = Json::object();
    for (size_t c = 0; c < v.classes.size(); ++c) per_class[v.classes[c]] = f.per_class[c];
    j["parts"][v.parts[p].name] = {
        {"pictures", f.pictures},       {"broken", f.broken},           {"bytes", f.bytes},
        {"formats", counts(f.formats)}, {"colours", counts(f.colours)}, {"width", spread(f.width)},
        {"height", spread(f.height)},   {"turned", f.turned},           {"classes", per_class}};
    for (size_t i = 0; i < v.parts[p].samples.size(); ++i) {
      const std::string& problem = v.parts[p].samples[i].problem;
      if (problem.empty()) continue;
      Json entry = sample({p, static_cast<int64_t>(i)});
      entry["problem"] = printable(problem);
      j["broken"].push_back(std::move(entry));
    }
  }
  for (const auto& group : v.identical) {
    Json samples = Json::array();
    for (const SampleOf& s : group) samples.push_back(sample(s));
    j["identical"].push_back(
        {{"samples", samples}, {"in_both_parts", v.leaks(group)}, {"of_several_classes", v.disagrees(group)}});
  }
  return j;
}

}  // namespace convolt::cli
