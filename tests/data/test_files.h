// Tiny files for the data tests.
#pragma once

#include <unistd.h>
#include <zlib.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "convolt/dataset.h"
#include "convolt/error.h"
#include "support/message_of.h"

namespace convolt::test {

using Bytes = std::vector<uint8_t>;

// A fresh folder that goes away with the object.
class TemporaryFolder {
public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "convolt-test-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make " + name);
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // Writes `bytes` to a file below, making the folders between.
  std::filesystem::path write(const std::string& name, const Bytes& bytes) const {
    const std::filesystem::path file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return file;
  }

private:
  std::filesystem::path path_;
};

inline Bytes bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// A raw PNM of RGB triples; the shortest file that every decoder takes.
inline Bytes ppm(int width, int height, const Bytes& rgb) {
  return bytes_of("P6\n" + std::to_string(width) + " " + std::to_string(height) + "\n255\n") + rgb;
}

// A picture of `width` x `height` whose pixels depend on `number`.
inline Bytes numbered_ppm(int width, int height, int number) {
  Bytes rgb;
  for (int i = 0; i < width * height * 3; ++i) rgb.push_back(static_cast<uint8_t>(number * 31 + i * 7));
  return ppm(width, height, rgb);
}

inline void write_gzip(const std::filesystem::path& path, const Bytes& bytes) {
  const gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(file);
}

inline std::unique_ptr<Dataset> open_at(const std::filesystem::path& path, Split split = Split::train,
                                        const std::string& format = "auto") {
  return open_dataset({.path = path.string(), .format = format, .split = split});
}

// Why the data set cannot be opened.
inline std::string refusal(const std::filesystem::path& path) {
  return message_of<DataError>([&] { open_at(path); });
}

}  // namespace convolt::test
