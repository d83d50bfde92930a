#include "drawing.h"

#include <algorithm>
#include <cmath>
#include <opencv2/imgproc.hpp>
#include <span>

#include "data/opencv_codecs.h"
#include "io/atomic_file.h"

namespace convolt::cli {
namespace {

constexpr int kFont = cv::FONT_HERSHEY_SIMPLEX;
constexpr double kCapitals = 21;  // units of the font from baseline to top
constexpr int kFine = 4;          // drawn so many times larger, then shrunk: even strokes at small sizes

struct Lettering {
  cv::Mat mask;  // u8: how much of each pixel the strokes cover
  int baseline;  // row
};

Lettering lettering(const std::string& text, int height) {
  const double scale = height * kFine / kCapitals;
  const int thickness = std::max(1, static_cast<int>(std::lround(height * kFine * 0.11)));
  int below = 0;
  const cv::Size size = cv::getTextSize(text, kFont, scale, thickness, &below);
  const int width = size.width / kFine + 2, rows = 2 * height, baseline = height + height / 2;
  cv::Mat fine = cv::Mat::zeros(rows * kFine, width * kFine, CV_8U);
  cv::putText(fine, text, {kFine, baseline * kFine}, kFont, scale, 255, thickness, cv::LINE_AA);
  cv::Mat mask;
  cv::resize(fine, mask, {width, rows}, 0, 0, cv::INTER_AREA);
  return {mask, baseline};
}

void blend(cv::Mat& picture, const cv::Mat& mask, cv::Point corner, const cv::Scalar& colour) {
  const cv::Rect inside = cv::Rect(corner, mask.size()) & cv::Rect({0, 0}, picture.size());
  for (int y = inside.y; y < inside.y + inside.height; ++y)
    for (int x = inside.x; x < inside.x + inside.width; ++x) {
      const double cover = mask.at<uint8_t>(y - corner.y, x - corner.x) / 255.0;
      auto& pixel = picture.at<cv::Vec3b>(y, x);
      for (int c = 0; c < 3; ++c)
        pixel[c] = static_cast<uint8_t>(std::lround(pixel[c] * (1 - cover) + colour[c] * cover));
    }
}

int before_anchor(int width, TextStyle::Anchor anchor) {
  return anchor == TextStyle::Anchor::left ? 0 : anchor == TextStyle::Anchor::centre ? width / 2 : width;
}

}  // namespace

std::optional<std::string> drawable(std::string_view text) {
  // U+00C0 to U+00FF, in UTF-8 C3 80 to C3 BF.
  constexpr std::string_view kPlain = "AAAAAAACEEEEIIIIDNOOOOOxOUUUUYTsaaaaaaaceeeeiiiidnooooo/ouuuuyty";
  std::string drawn;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    const auto next = static_cast<uint8_t>(i + 1 < text.size() ? text[i + 1] : 0);
    if (byte == 0xC3 && next >= 0x80 && next < 0xC0) {
      drawn += kPlain[next - 0x80];
      ++i;
    } else if (byte >= 0x80) {
      return std::nullopt;
    } else {
      drawn += byte < 0x20 || byte == 0x7F ? '?' : text[i];
    }
  }
  return drawn;
}

int text_width(const std::string& text, int height) {
  int below = 0;
  return cv::getTextSize(text, kFont, height * kFine / kCapitals, 1, &below).width / kFine + 1;
}

std::string fitted(const std::string& text, int height, int width, Keep keep) {
  if (text_width(text, height) <= width) return text;
  std::string kept = text;
  while (!kept.empty() && text_width(kept + "..", height) > width)
    kept.erase(keep == Keep::end ? 0 : kept.size() - 1, 1);
  return keep == Keep::end ? ".." + kept : kept + "..";
}

void draw_text(cv::Mat& picture, const std::string& text, cv::Point at, const TextStyle& style) {
  const Lettering l = lettering(text, style.height);
  const cv::Point corner{at.x - before_anchor(l.mask.cols, style.anchor), at.y + style.height / 2 - l.baseline};
  blend(picture, l.mask, corner, style.colour);
}

void draw_text_upwards(cv::Mat& picture, const std::string& text, cv::Point at, const TextStyle& style) {
  const Lettering l = lettering(text, style.height);
  cv::Mat turned;
  cv::rotate(l.mask, turned, cv::ROTATE_90_COUNTERCLOCKWISE);
  const cv::Point corner{at.x + style.height / 2 - l.baseline,
                         at.y - (turned.rows - before_anchor(turned.rows, style.anchor))};
  blend(picture, turned, corner, style.colour);
}

cv::Mat bgr_of(const uint8_t* pixels, int height, int width, int channels) {
  const cv::Mat seen(height, width, CV_8UC(channels), const_cast<uint8_t*>(pixels));
  cv::Mat picture;
  cv::cvtColor(seen, picture, channels == 1 ? cv::COLOR_GRAY2BGR : cv::COLOR_RGB2BGR);
  return picture;
}

void write_png(const std::string& path, const cv::Mat& picture) {
  const std::vector<uint8_t> bytes = opencv_imencode(".png", picture);
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(bytes)));
  file.commit();
}

}  // namespace convolt::cli
