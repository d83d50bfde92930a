#include "html.h"

#include <fmt/format.h>

#include "text_table.h"

namespace convolt::cli {
namespace {

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --paper: #ffffff; --panel: #f5f7fa; --ink: #1b222b; --faint: #5d6977; --line: #d8dee6;
  --train: #8a97a6; --val: #1667b7; --accent: #c2570c; --heat: #0b4f9e; --on-heat: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --paper: #10151b; --panel: #181f27; --ink: #e4e9ef; --faint: #98a3b0;
  --line: #2c3540; --train: #76828f; --val: #6cb2f7; --accent: #f0a057; --heat: #2f7fd6; --on-heat: #ffffff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 28px 24px 64px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 19px; margin: 44px 0 12px; }
h3 { font-size: 14px; font-weight: 600; margin: 0 0 6px; }
p { margin: 6px 0; } .faint, small, figcaption span { color: var(--faint); } small { font-weight: 400; }
.note { border-left: 3px solid var(--accent); background: var(--panel); padding: 8px 14px; margin: 16px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: 12px; margin: 20px 0; }
.tile { background: var(--panel); border-radius: 8px; padding: 12px 14px; }
.tile b { display: block; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 20px; }
.panel { background: var(--panel); border-radius: 8px; padding: 14px 16px; min-width: 0; overflow-x: auto; }
.scroll { max-height: 530px; overflow: auto; }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, "DejaVu Sans", sans-serif; }
svg text { fill: var(--faint); } svg .strong { fill: var(--ink); } svg .on { fill: var(--on-heat); }
.grid { stroke: var(--line); } .axis { stroke: var(--faint); } .ideal { stroke: var(--faint); stroke-dasharray: 4 4; }
.heat { fill: var(--heat); } .empty { fill: var(--line); fill-opacity: 0.35; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.train { stroke: var(--train); } .val { stroke: var(--val); } .dot.train { fill: var(--train); } .dot.val { fill: var(--val); } .bar { fill: var(--val); fill-opacity: 0.75; }
.after { fill: var(--accent); }
.key { display: inline-block; width: 14px; height: 3px; vertical-align: middle; margin: 0 6px 2px 14px; }
.key.train { background: var(--train); } .key.val { background: var(--val); } .key.accent { background: var(--accent); }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px 4px 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; position: sticky; top: 0; background: var(--panel); }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
.pairs td:nth-child(2), .pairs th:nth-child(2) { text-align: left; }
.words td { white-space: normal; overflow-wrap: anywhere; vertical-align: top; } .words td:first-child { white-space: nowrap; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 16px; }
figure { margin: 0; background: var(--panel); border-radius: 8px; overflow: hidden; }
figure img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: #0002; }
img.small { image-rendering: pixelated; } img.matrix { display: block; max-width: 100%; height: auto; margin: 0 auto; border-radius: 4px; }
figcaption { padding: 8px 10px 10px; font-size: 13px; line-height: 1.4; overflow-wrap: anywhere; }
)";

}  // namespace

std::string html(std::string_view text) {
  constexpr std::string_view kMarkup = "&<>\"'";
  constexpr const char* kEntities[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
  std::string safe;
  for (const char c : printable(text)) {
    const size_t at = kMarkup.find(c);
    safe += at == std::string_view::npos ? std::string(1, c) : kEntities[at];
  }
  return safe;
}

std::string base64(std::span<const uint8_t> bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t have = std::min<size_t>(3, bytes.size() - i);
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k) bits = bits << 8 | (k < have ? bytes[i + k] : 0U);
    for (size_t k = 0; k < 4; ++k) text += k <= have ? kDigits[bits >> (18 - 6 * k) & 63U] : '=';
  }
  return text;
}

std::string tile(std::string_view value, std::string_view what, std::string_view more) {
  return fmt::format("<div class=\"tile\"><b>{}</b>{}{}</div>\n", html(value), html(what),
                     more.empty() ? "" : "<br><small>" + html(more) + "</small>");
}

std::string panel(std::string_view title, std::string_view body) {
  return fmt::format("<div class=\"panel\"><h3>{}</h3>\n{}</div>\n", title, body);
}

std::string html_page(std::string_view title, std::string_view body) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n{}</body>\n</html>\n",
      html(title), kStyle, body);
}

}  // namespace convolt::cli
