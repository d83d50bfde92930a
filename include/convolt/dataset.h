// Data sets: what samples there are, and the bytes of each. Recognised by looking at the path.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace convolt {

// One sample as its source holds it: an encoded picture file, or raw pixels.
struct RawSample {
  std::vector<uint8_t> bytes;  // the file; or u8 [height, width, channels] when `height` > 0
  int height = 0, width = 0, channels = 0;
};

// Immutable after opening; all methods are thread-safe.
class Dataset {
public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  // Index of the class in class_names(), which are sorted bytewise for folders.
  virtual int32_t label(int64_t i) const = 0;
  // For messages: the path of the picture, or "data_batch_1.bin[17]".
  virtual std::string name(int64_t i) const = 0;
  // Throws DataError with the name when the bytes cannot be had.
  virtual RawSample read(int64_t i) const = 0;
  // Fills `into` with the bytes of the encoded file from `offset` as far as it goes and returns their number: headers
  // are read without the rest. For samples that are files; raw pixels have fixed_height(). Throws as read() does.
  virtual size_t read_part(int64_t i, int64_t offset, std::span<uint8_t> into) const;
  const std::vector<std::string>& class_names() const { return class_names_; }
  // "image folder", "CIFAR-10 records", "IDX".
  virtual std::string describe() const = 0;
  // 1 when every sample is grey by format (IDX), else 3.
  virtual int channels() const { return 3; }
  // Height and width of every sample where the format fixes it (IDX, CIFAR), else 0.
  virtual int fixed_height() const { return 0; }
  virtual int fixed_width() const { return 0; }

protected:
  std::vector<std::string> class_names_;
};

enum class Split : uint8_t { train, validation };

struct DatasetOptions {
  std::string path;
  // "auto", "folder", "cifar10", "idx".
  std::string format = "auto";
  Split split = Split::train;
};

// Opens a data set: an image folder (train/<class>/*, val|validation|test/<class>/*, or <class>/* itself), a folder or
// file of CIFAR-10 binary records (data_batch_*.bin, test_batch*.bin), or a folder of IDX files, plain or .gz (train-*,
// t10k-*). Throws DataError or FormatError. A data set without the asked split: nullptr for validation (then there is
// none), DataError for train.
std::unique_ptr<Dataset> open_dataset(const DatasetOptions& options);

}  // namespace convolt
