// The cases that tools/golden/augment_golden.py and picture_ops_golden.py made with Pillow and torchvision, and the
// pictures they start from.
#pragma once

#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace convolt::test {

// A smooth ramp with hard, irregular detail on top: u8 [height, width, channels].
inline std::vector<uint8_t> golden_picture(int width, int height, int channels) {
  std::vector<uint8_t> picture;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < channels; ++c) {
        const int detail = (x * 37 + y * 91 + c * 53 + x * y * 13) % 97, ramp = (x * 5 + y * 3 + c * 20) % 256;
        picture.push_back(static_cast<uint8_t>((x / 3 + y / 2) % 2 == 0 ? ramp : (ramp + detail * 2) % 256));
      }
  return picture;
}

struct GoldenCase {
  std::string kind, name;
  std::map<std::string, double> numbers;
  std::vector<double> values;  // [out_height, out_width, channels]; in 0..255 for pictures from Pillow, else in 0..1
  int operator[](const std::string& key) const { return static_cast<int>(numbers.at(key)); }
  float real(const std::string& key) const { return static_cast<float>(numbers.at(key)); }
};

template <class T>
std::vector<double> golden_values(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  std::vector<T> values(bytes.size() / sizeof(T));
  bytes.copy(reinterpret_cast<char*>(values.data()), values.size() * sizeof(T));
  return {values.begin(), values.end()};
}

// All cases of a kind: resize, centre_crop, colour, affine, filter or border, or one of the subfolder ops/, which has
// bytes only. Throws when there are none.
inline std::vector<GoldenCase> golden_cases(const std::string& kind, const std::string& subfolder = "") {
  const std::string folder = CONVOLT_SOURCE_DIR "/tests/augment/golden/" + subfolder;
  const bool levels = kind == "resize" || kind == "centre_crop" || !subfolder.empty();
  const auto values =
      levels ? golden_values<uint8_t>(folder + "values.u8") : golden_values<float>(folder + "values.f32");
  std::vector<GoldenCase> cases;
  std::ifstream index(folder + "cases.txt");
  for (std::string line, word; std::getline(index, line);) {
    std::istringstream words(line);
    GoldenCase c;
    words >> c.kind >> c.name;
    if (c.kind != kind) continue;
    while (words >> word) c.numbers[word.substr(0, word.find('='))] = std::stod(word.substr(word.find('=') + 1));
    const auto first = values.begin() + c["at"];
    c.values.assign(first, first + c["out_height"] * c["out_width"] * c["channels"]);
    cases.push_back(std::move(c));
  }
  if (cases.empty()) throw std::runtime_error("no golden case of kind " + kind + " in " + folder);
  return cases;
}

}  // namespace convolt::test
