// Lettering and files for the pictures that commands draw (8-bit BGR, as OpenCV has them).
#pragma once

#include <cstdint>
#include <opencv2/core.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace convolt::cli {

inline const cv::Scalar kPaper{250, 250, 250}, kInk{40, 40, 40}, kFaint{125, 125, 125};

// What OpenCV's stroke font can draw: ASCII, Latin letters without their accents. None for any other script.
std::optional<std::string> drawable(std::string_view text);

struct TextStyle {
  enum class Anchor : uint8_t { left, centre, right };
  int height = 11;  // of capitals, pixels
  cv::Scalar colour{60, 60, 60};
  Anchor anchor = Anchor::left;
};

// Pixels from the first to the last stroke. The text is ASCII.
int text_width(const std::string& text, int height);
// At most so many pixels wide: where it is longer, its beginning or its end with ".." for the rest.
enum class Keep : uint8_t { beginning, end };
std::string fitted(const std::string& text, int height, int width, Keep keep = Keep::beginning);
// `at`: the anchor, half way up the capitals.
void draw_text(cv::Mat& picture, const std::string& text, cv::Point at, const TextStyle& style);
// Turned to read upwards; `at`: the anchor, half way through the capitals.
void draw_text_upwards(cv::Mat& picture, const std::string& text, cv::Point at, const TextStyle& style);

// u8 [height, width, channels], RGB or grey, as a picture to draw into others.
cv::Mat bgr_of(const uint8_t* pixels, int height, int width, int channels);
// Through AtomicFile.
void write_png(const std::string& path, const cv::Mat& picture);

}  // namespace convolt::cli
