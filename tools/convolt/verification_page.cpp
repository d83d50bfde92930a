// The page of convolt verify.
#include <fmt/format.h>

#include <algorithm>

#include "convolt/error.h"
#include "data/opencv_codecs.h"
#include "drawing.h"
#include "html.h"
#include "text_table.h"
#include "verification.h"

namespace convolt::cli {
namespace {

constexpr size_t kMostFigures = 60, kMostRows = 500;

std::string words(const std::vector<std::pair<std::string, int64_t>>& counts) {
  std::string rows;
  for (const auto& [name, count] : counts)
    rows += fmt::format("<tr><td>{}</td><td style=\"text-align:right\">{}</td></tr>\n", html(name), count);
  return "<table class=\"words\">\n" + rows + "</table>\n";
}

// The picture as a data: URL, at most 200 pixels long; empty where it cannot be drawn.
std::string small_picture(const Dataset& data, int64_t i) {
  try {
    DecodeLimits limits;
    limits.max_side = 200;
    const RawSample sample = data.read(i);
    std::vector<uint8_t> pixels(static_cast<size_t>(decoded_size(sample, limits).bytes()));
    const PictureSize size = decode(sample, limits, pixels, data.name(i));
    const bool tiny = std::max(size.height, size.width) <= 64;
    return fmt::format(
        "data:image/{};base64,{}", tiny ? "png" : "jpeg",
        base64(opencv_imencode(tiny ? ".png" : ".jpg", bgr_of(pixels.data(), size.height, size.width, size.channels))));
  } catch (const Error&) {
    return "";
  }
}

std::string figure(const Dataset& data, int64_t i, const std::string& caption) {
  const std::string url = small_picture(data, i);
  if (url.empty()) return "";
  return fmt::format("<figure><img alt=\"{}\" src=\"{}\"><figcaption>{}</figcaption></figure>\n", html(data.name(i)),
                     url, caption);
}

std::string classes(const Verification& v, const std::vector<PartFigures>& figures) {
  std::vector<size_t> order(v.classes.size());
  for (size_t c = 0; c < order.size(); ++c) order[c] = c;
  const auto& first = figures[0].per_class;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return first[a] > first[b]; });
  const int64_t most = order.empty() ? 1 : std::max<int64_t>(1, first[order[0]]);
  std::string rows;
  for (const size_t c : order) {
    rows += fmt::format("<tr><td>{}</td>", html(cut(v.classes[c], 40)));
    for (const PartFigures& f : figures) rows += fmt::format("<td>{}</td>", f.per_class[c]);
    rows += fmt::format(
        "<td style=\"width:50%\"><div class=\"heat-bar\" style=\"background:var(--val);opacity:.75;height:10px;"
        "width:{:.2f}%\"></div></td></tr>\n",
        100.0 * static_cast<double>(first[c]) / static_cast<double>(most));
  }
  std::string head = "<tr><th>class</th>";
  for (const VerifiedPart& p : v.parts) head += "<th>" + p.name + "</th>";
  return "<h2>Classes</h2>\n" + panel("Pictures of each class", "<div class=\"scroll\"><table>" + head +
                                                                    "<th></th></tr>\n" + rows + "</table></div>\n");
}

std::string broken(const Verification& v) {
  std::string rows;
  size_t count = 0;
  for (const VerifiedPart& part : v.parts)
    for (size_t i = 0; i < part.samples.size(); ++i)
      if (const std::string& problem = part.samples[i].problem; !problem.empty() && count++ < kMostRows)
        rows += fmt::format("<tr><td>{}</td><td>{}</td></tr>\n", html(part.data->name(static_cast<int64_t>(i))),
                            html(problem));
  if (rows.empty()) return "<h2>Broken pictures</h2>\n<p>None: every picture was decoded to its end.</p>\n";
  return fmt::format("<h2>Broken pictures</h2>\n<p class=\"faint\">{} in all{}</p>\n", count,
                     count > kMostRows ? fmt::format(", the first {} of them", kMostRows) : "") +
         panel("", "<table class=\"words\">\n" + rows + "</table>\n");
}

std::string identical(const Verification& v) {
  const std::string head = "<h2>The same file more than once</h2>\n";
  if (v.identical.empty()) return head + "<p>None.</p>\n";
  // What harms most comes first.
  std::vector<const std::vector<SampleOf>*> order;
  for (const auto& group : v.identical) order.push_back(&group);
  const auto harm = [&](const auto* g) { return (v.leaks(*g) ? 2 : 0) + (v.disagrees(*g) ? 1 : 0); };
  std::stable_sort(order.begin(), order.end(), [&](const auto* a, const auto* b) { return harm(a) > harm(b); });
  std::string gallery;
  for (size_t k = 0; k < std::min(order.size(), kMostFigures); ++k) {
    const auto& group = *order[k];
    std::string caption;
    if (v.leaks(group)) caption += "<b>in both parts</b> ";
    if (v.disagrees(group)) caption += "<b>of several classes</b>";
    for (const SampleOf& s : group)
      caption += fmt::format("<br><span>{} ({}, {})</span>", html(v.name_of(s)), html(v.class_of(v.at(s).label)),
                             v.parts[s.set].name);
    gallery += figure(*v.parts[group[0].set].data, group[0].sample, caption);
  }
  return head + fmt::format("<p class=\"faint\">{} groups{}.</p>\n<div class=\"gallery\">\n{}</div>\n",
                            v.identical.size(),
                            order.size() > kMostFigures ? fmt::format(", {} shown", kMostFigures) : "", gallery);
}

// The first good picture of each class.
std::string examples(const Verification& v) {
  std::string gallery;
  const VerifiedPart& part = v.parts[0];
  std::vector<bool> seen(v.classes.size());
  size_t shown = 0;
  for (size_t i = 0; i < part.samples.size() && shown < kMostFigures; ++i) {
    const Examined& e = part.samples[i];
    if (!e.problem.empty() || e.label < 0 || static_cast<size_t>(e.label) >= seen.size() ||
        seen[static_cast<size_t>(e.label)])
      continue;
    seen[static_cast<size_t>(e.label)] = true;
    ++shown;
    gallery += figure(*part.data, static_cast<int64_t>(i),
                      fmt::format("<b>{}</b><br><span>{} x {}</span>", html(v.class_of(e.label)), e.width, e.height));
  }
  return "<h2>Examples</h2>\n<div class=\"gallery\">\n" + gallery + "</div>\n";
}

}  // namespace

std::string verification_page(const Verification& v) {
  std::vector<PartFigures> figures;
  for (const VerifiedPart& part : v.parts) figures.push_back(figures_of(part, v.classes.size()));
  std::string body = fmt::format("<h1>{}</h1>\n<p class=\"faint\">{}, {} classes</p>\n<div class=\"tiles\">\n",
                                 html(v.path), html(v.format), v.classes.size());
  for (size_t p = 0; p < figures.size(); ++p)
    body += tile(std::to_string(figures[p].pictures), "for " + v.parts[p].name,
                 fmt::format("{:.1f} MB", static_cast<double>(figures[p].bytes) / 1e6));
  body += tile(std::to_string(v.broken()), "broken");
  const auto count = [&](auto is) { return std::to_string(std::count_if(v.identical.begin(), v.identical.end(), is)); };
  body += tile(std::to_string(v.identical.size()), "the same file", "groups of two or more");
  body += tile(count([&](const auto& g) { return v.leaks(g); }), "in both parts", "of these groups");
  body += tile(count([&](const auto& g) { return v.disagrees(g); }), "of several classes", "of these groups");
  body += "</div>\n<h2>Files</h2>\n<div class=\"charts\">\n";
  for (size_t p = 0; p < figures.size(); ++p) {
    const PartFigures& f = figures[p];
    const auto sizes =
        fmt::format("<p>width {} / {} / {}, height {} / {} / {} <small>(least / median / most)</small></p>",
                    f.width.least, f.width.median, f.width.most, f.height.least, f.height.median, f.height.most);
    body += panel("For " + v.parts[p].name, sizes + words(f.formats) + "<br>" + words(f.colours) +
                                                (f.turned > 0 ? fmt::format("<p>{} turned by their Exif "
                                                                            "orientation</p>",
                                                                            f.turned)
                                                              : std::string()));
  }
  body += "</div>\n" + broken(v) + identical(v) + classes(v, figures) + examples(v);
  return html_page("verify: " + v.path, body);
}

}  // namespace convolt::cli
