#include "report_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "data/opencv_codecs.h"
#include "drawing.h"
#include "html.h"
#include "text_table.h"

namespace convolt::cli {
namespace {

std::string in_percent(double part) { return fmt::format("{:.2f} %", 100 * part); }
std::string in_percent(std::optional<double> part) { return part ? in_percent(*part) : "–"; }

// "1.82 G", "0.27 M".
std::string amount(double count) {
  return count >= 1e8 ? fmt::format("{:.2f} G", count / 1e9) : fmt::format("{:.2f} M", count / 1e6);
}

std::string tiles(const Report& r) {
  std::string body;
  if (r.measured) {
    const Evaluation& e = r.measured->evaluation;
    const auto proportion = [&](const Proportion& p, const std::string& what) {
      const Interval i = p.interval();
      body += tile(in_percent(p.value()), what, fmt::format("95 %: {:.2f} to {:.2f}", 100 * i.low, 100 * i.high));
    };
    proportion(e.top1, "top-1");
    if (e.top_k > 1 && e.top_k < e.classes) proportion(e.topk, fmt::format("top-{}", e.top_k));
    body += tile(fmt::format("{:.4f}", e.plain.loss), "loss", "cross-entropy");
    body += tile(in_percent(e.macro.f1), "macro F1", "mean over the classes");
    body += tile(in_percent(e.plain.ece), "ECE", in_percent(e.scaled.ece) + " after temperature");
    body += tile(std::to_string(e.samples), "pictures",
                 r.measured->skipped > 0 ? fmt::format("{} could not be read", r.measured->skipped) : "");
  }
  body += tile(amount(static_cast<double>(r.parameters)), "parameters",
               amount(static_cast<double>(r.multiply_adds)) + " multiply-adds a picture");
  return "<div class=\"tiles\">\n" + body + "</div>\n";
}

// "validation, best 91.64 % at step 3900".
std::string validation_key(const std::vector<Point>& points, bool largest) {
  if (points.empty()) return "";
  const auto less = [](const Point& a, const Point& b) { return a.y < b.y; };
  const Point best = largest ? *std::max_element(points.begin(), points.end(), less)
                             : *std::min_element(points.begin(), points.end(), less);
  const std::string value = largest ? in_percent(best.y) : fmt::format("{:.4f}", best.y);
  return fmt::format("<span class=\"key val\"></span>validation, best {} at step {:g}", value, best.x);
}

std::string curves(const Metrics& m) {
  if (m.loss.empty() && m.validation_loss.empty()) return "";
  const std::string x = m.steps_per_epoch > 0 ? fmt::format("step ({:g} an epoch)", m.steps_per_epoch) : "step";
  const std::string train = m.loss.empty() ? "" : "<span class=\"key train\"></span>training";
  std::string body = panel("Loss <small>" + train + validation_key(m.validation_loss, false) + "</small>",
                           line_chart({.x_label = x}, {{"train", m.loss}, {"val", m.validation_loss, true}}));
  body += panel("Top-1 <small>" + train + validation_key(m.validation_top1, true) + "</small>",
                line_chart({.x_label = x, .percent = true}, {{"train", m.top1}, {"val", m.validation_top1, true}}));
  if (!m.rate.empty()) body += panel("Learning rate", line_chart({.x_label = x, .from_zero = true}, {{"val", m.rate}}));
  return "<h2>Training</h2>\n<div class=\"charts\">\n" + body + "</div>\n";
}

std::string matrix(const Confusion& c) {
  constexpr int64_t kMostInSvg = 40;
  if (c.classes() <= kMostInSvg) return heat_map(c);
  return fmt::format("<img class=\"matrix\" alt=\"confusion matrix\" src=\"data:image/png;base64,{}\">\n",
                     base64(opencv_imencode(".png", draw_confusion(c, "true against predicted class"))));
}

std::string most_confused(const Confusion& c) {
  struct Pair {
    int64_t count, label, guess;
  };
  std::vector<Pair> pairs;
  for (int64_t row = 0; row < c.classes(); ++row)
    for (int64_t column = 0; column < c.classes(); ++column)
      if (row != column && c.at(row, column) > 0) pairs.push_back({c.at(row, column), row, column});
  std::stable_sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.count > b.count; });
  constexpr size_t kShown = 15, kLongestName = 20;
  std::string rows;
  for (size_t i = 0; i < std::min(kShown, pairs.size()); ++i) {
    const Pair& p = pairs[i];
    const auto part = static_cast<double>(p.count) / static_cast<double>(c.row_sum(p.label));
    rows += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                        html(cut(c.names[static_cast<size_t>(p.label)], kLongestName)),
                        html(cut(c.names[static_cast<size_t>(p.guess)], kLongestName)), p.count, in_percent(part));
  }
  if (rows.empty()) return "<p>None: every picture is right.</p>\n";
  return "<table class=\"pairs\"><tr><th>true</th><th>taken for</th><th>pictures</th><th>of the class</th></tr>\n" +
         rows + "</table>\n";
}

std::string class_table(const Measured& m) {
  const Evaluation& e = m.evaluation;
  std::string rows;
  for (size_t i = 0; i < e.per_class.size(); ++i) {
    const ClassScores& c = e.per_class[i];
    rows += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                        html(cut(m.confusion.names[i], 26)), in_percent(c.precision()), in_percent(c.recall()),
                        in_percent(c.f1()), c.support);
  }
  return fmt::format(
      "<table><tr><th>class</th><th>precision</th><th>recall</th><th>F1</th><th>pictures</th></tr>\n{}"
      "<tr><td>mean</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr></table>\n",
      rows, in_percent(e.macro.precision), in_percent(e.macro.recall), in_percent(e.macro.f1), e.samples);
}

std::string classes(const Measured& m) {
  const std::string map =
      panel("Confusion matrix <small>pictures; colour by the part of the row</small>", matrix(m.confusion));
  const std::string pairs =
      panel("Most frequent confusions", "<div class=\"scroll\">" + most_confused(m.confusion) + "</div>\n");
  const std::string scores = panel("Scores of each class", "<div class=\"scroll\">" + class_table(m) + "</div>\n");
  constexpr int64_t kHalfAPage = 12;  // classes of a matrix that leaves room beside it
  const std::string charts = "<div class=\"charts\">\n", end = "</div>\n";
  return "<h2>Classes</h2>\n" + (m.confusion.classes() <= kHalfAPage ? charts + map + pairs + end + "<br>\n" + scores
                                                                     : map + "<br>\n" + charts + pairs + scores + end);
}

std::string calibration(const Evaluation& e) {
  const char* sure = e.temperature > 1.05   ? "The network is surer than it is right."
                     : e.temperature < 0.95 ? "The network is less sure than it is right."
                                            : "The network is about as sure as it is right.";
  const std::string text = fmt::format(
      "<p>{} Divided by the temperature <b>{:.3f}</b>, which fits these pictures best, its logits give a loss of "
      "{:.4f} "
      "instead of {:.4f}, and an expected calibration error of {} instead of {}.</p>\n"
      "<p class=\"faint\">Bars: how often the network is right where it is so sure, in {} bins; on the dashed line it "
      "would be right as often as it is sure. Dots: the same after the temperature. Below: how many pictures it is so "
      "sure of. The temperature was fitted on the pictures it is measured on, which flatters it a little.</p>\n",
      sure, e.temperature, e.scaled.loss, e.plain.loss, in_percent(e.scaled.ece), in_percent(e.plain.ece),
      e.plain.bins.size());
  return "<h2>Calibration</h2>\n<div class=\"charts\">\n" +
         panel(
             "Confidence <small><span class=\"key val\"></span>as it is<span class=\"key accent\"></span>after "
             "temperature</small>",
             reliability_diagram(e.plain, e.scaled)) +
         "<div>" + text + "</div>\n</div>\n";
}

std::string gallery(const Measured& m) {
  std::string body;
  for (const Mistake& wrong : m.mistakes)
    body += fmt::format(
        "<figure><img{} alt=\"{}\" src=\"{}\"><figcaption><b>{}</b> {:.1f} %<br><span>taken for</span> {} {:.1f} "
        "%<br><span>{}</span></figcaption></figure>\n",
        wrong.small ? " class=\"small\"" : "", html(wrong.name), wrong.picture, html(wrong.label),
        100 * wrong.label_probability, html(wrong.guess), 100 * wrong.guess_probability, html(wrong.name));
  const std::string head = "<h2>Worst mistakes</h2>\n";
  if (m.evaluation.top1.hits == m.evaluation.samples) return head + "<p>None: every picture is right.</p>\n";
  if (body.empty()) return "";
  return head +
         "<p class=\"faint\">Wrong pictures of the highest loss, as the network sees them: true class, its "
         "probability, and what the network takes them for.</p>\n<div class=\"gallery\">\n" +
         body + "</div>\n";
}

std::string facts(const std::string& title, const Facts& list) {
  std::string rows;
  for (const auto& [key, value] : list)
    rows += fmt::format("<tr><td>{}</td><td>{}</td></tr>\n", html(key), html(value));
  return panel(title, "<table class=\"words\">\n" + rows + "</table>\n");
}

}  // namespace

std::string report_html(const Report& r) {
  std::string body = fmt::format("<h1>{}</h1>\n<p class=\"faint\">{}</p>\n", html(r.card.model), html(r.run));
  if (r.measured) body += fmt::format("<p class=\"faint\">Measured on {}</p>\n", html(r.measured->on));
  body += tiles(r);
  for (const std::string& note : r.notes) body += "<p class=\"note\">" + html(note) + "</p>\n";
  body += curves(r.metrics);
  if (r.measured) body += classes(*r.measured) + calibration(r.measured->evaluation) + gallery(*r.measured);
  body += "<h2>Run</h2>\n<div class=\"charts\">\n" + facts("Configuration", r.configuration) +
          facts("Environment", r.environment) + "</div>\n";
  return html_page(r.card.model + " - " + r.run, body);
}

}  // namespace convolt::cli
