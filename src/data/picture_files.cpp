#include "convolt/dataset.h"
#include "data/sources.h"

namespace convolt {
namespace {

class PictureFiles final : public Dataset {
public:
  explicit PictureFiles(std::vector<std::string> paths) : paths_(std::move(paths)) {}
  int64_t size() const override { return static_cast<int64_t>(paths_.size()); }
  RawSample read(int64_t i) const override { return read_picture_file(name(i)); }
  std::string name(int64_t i) const override { return paths_[static_cast<size_t>(i)]; }
  std::string describe() const override { return "picture files"; }
  bool reads_parts() const override { return true; }
  size_t read_part(int64_t i, int64_t offset, std::span<uint8_t> into) const override {
    return read_picture_part(name(i), offset, into);
  }

private:
  std::vector<std::string> paths_;
};

}  // namespace

std::unique_ptr<Dataset> picture_files(std::vector<std::string> paths) {
  return std::make_unique<PictureFiles>(std::move(paths));
}

}  // namespace convolt
