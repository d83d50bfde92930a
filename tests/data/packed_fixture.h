// A small picture set in a folder, to be packed.
#pragma once

#include <iterator>

#include "convolt/pack.h"
#include "exif.h"
#include "jpeg_writer.h"
#include "test_files.h"

namespace convolt::test {

inline Bytes read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// 3 classes; JPEGs of several sizes, two of them turned by Exif, PNMs, a picture in a nested folder. With `spoilt` also
// a JPEG that is cut and a file that is no picture.
class PictureFolder {
public:
  explicit PictureFolder(bool spoilt = false) {
    const char* const classes[] = {"ape", "bee", "cat"};
    for (int i = 0; i < 18; ++i) {
      const std::string name = std::string(i % 6 == 5 ? "val/" : "train/") + classes[i % 3] + "/" + std::to_string(i);
      if (i % 4 == 0)
        folder_.write(name + ".ppm", numbered_ppm(9 + i, 20 - i, i));
      else
        folder_.write(name + ".jpg", jpeg(30 + 5 * i, 61 - 2 * i, i % 4 == 1 ? 6 : 1));
    }
    for (const char* name : {"val/ape/x.ppm", "val/bee/x.ppm", "train/cat/deep/cat/y.ppm"})
      folder_.write(name, numbered_ppm(5, 4, 77));
    if (!spoilt) return;
    Bytes cut = jpeg(40, 50, 1);
    cut.resize(cut.size() - 40);
    folder_.write("train/ape/cut.jpg", cut);
    folder_.write("train/bee/text.jpg", bytes_of("not a picture"));
  }

  std::string path() const { return folder_.path().string(); }
  // Beside the splits, where a folder of pictures does not look.
  std::string at(const std::string& name) const { return (out_.path() / name).string(); }

  PackOptions options(const std::string& output = "set.cvt") const {
    PackOptions o;
    o.data_path = path();
    o.output = at(output);
    return o;
  }
  std::unique_ptr<Dataset> open(Split split = Split::train) const { return open_dataset({path(), "auto", split}); }
  std::unique_ptr<Dataset> open_set(Split split = Split::train, const std::string& name = "set.cvt") const {
    return open_dataset({at(name), "auto", split});
  }

private:
  static Bytes jpeg(int width, int height, int orientation) {
    const Bytes plain = write_jpeg({}, width, height);
    return orientation == 1 ? plain : with_exif(plain, orientation, false);
  }

  TemporaryFolder folder_, out_;
};

}  // namespace convolt::test
