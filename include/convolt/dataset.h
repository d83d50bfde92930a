// Data sets: what samples there are, and the bytes of each. Those of known formats are recognised by looking at the
// path; one of your own is a class with two functions, size() and read() (examples/own_dataset.cpp).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace convolt {

// Of a picture, unless something else is asked for: a header that declares more makes it a bad one, before anything is
// allocated.
constexpr int64_t kMaxPixels = 200'000'000;

// A colour, R, G, B.
using Background = std::array<uint8_t, 3>;

// How picture files become pixels.
struct DecodeOptions {
  int max_side = 0;  // larger pictures are shrunk by an integer factor to at most this; 0: 8 x the larger side of the
                     // network's input, where the shorter side keeps as many pixels as that
  int64_t max_pixels = kMaxPixels;  // a header that declares more is a bad picture
  // What shows through the transparent pixels of PNG, WebP and GIF files; none: the colours that they have themselves.
  std::optional<Background> background = {};
  // A JPEG of whose crop the network's input has a half of the pixels along each side, or fewer, is decoded at 1/2, 1/4
  // or 1/8: quicker, and the same but for small differences. true: never, so that the bits are those of a resident set
  // and of decoded pixels (convolt pack --raw).
  bool full_decode = false;
};

// One sample as its source holds it: an encoded picture file, or raw pixels.
struct RawSample {
  std::vector<uint8_t> bytes;         // the file; or u8 [height, width, channels] when `height` > 0
  int height = 0, width = 0;          // of raw pixels; 0 for a file
  int channels = 0;                   // of raw pixels: 3 (RGB) or 1 (grey)
  std::optional<int32_t> label = {};  // index of the class; absent where Dataset::label() says it without reading
  // In place of `bytes` where the data set has them in memory: valid as long as it is.
  std::span<const uint8_t> kept = {};

  // The bytes, wherever they are.
  std::span<const uint8_t> content() const { return kept.empty() ? std::span<const uint8_t>(bytes) : kept; }
};

// Of an upright picture: 3 channels but for grey raw pixels.
struct PictureExtent {
  int height = 0, width = 0, channels = 3;  // pixels; 0 x 0: no picture
};

// A class that derives from it defines size() and read(); the rest has defaults, which say less or cost more. Decode
// threads call const methods at the same time: they are thread-safe, and sample i is the same whenever it is read.
class Dataset {
public:
  virtual ~Dataset() = default;
  // Number of samples.
  virtual int64_t size() const = 0;
  // Sample i of 0 .. size() - 1: a file or raw pixels, with its label. Throws DataError when it cannot be had: then
  // another takes its place in training, and evaluation leaves it out; anything else that is thrown ends the run.
  virtual RawSample read(int64_t i) const = 0;

  // Index of the sample's class in class_names(), which are sorted bytewise for folders. By default read() is asked;
  // UsageError where that has no label.
  virtual int32_t label(int64_t i) const;
  // How much the sample counts in the loss of a training, above 0. By default 1. Evaluation counts all alike.
  virtual float weight(int64_t i) const;
  // For messages: the path of the picture, or "data_batch_1.bin[17]". By default "sample 17".
  virtual std::string name(int64_t i) const;
  // "image folder", "image folder in tar", "CIFAR-10 records", "IDX". By default "data set".
  virtual std::string describe() const;
  // True for encoded files of which read_part() gives the header without the rest. Otherwise, and without
  // fixed_height() or extent(), a loader reads every sample once before it begins, to learn how large they are.
  virtual bool reads_parts() const { return false; }
  // Fills `into` with the bytes of the file from `offset` as far as it goes and returns their number. By default a part
  // of read(). Throws as read() does.
  virtual size_t read_part(int64_t i, int64_t offset, std::span<uint8_t> into) const;
  // Of sample i, where that is known without reading it: 0 x 0 when it is no picture. By default it is not known.
  virtual std::optional<PictureExtent> extent(int64_t i) const;
  // A loader will read these samples soon: time to have them fetched from the disk, without waiting for it. By default
  // nothing is done. It is called where fetches_ahead().
  virtual void expect(std::span<const int64_t> samples) const noexcept;
  // Whether expect() does anything.
  virtual bool fetches_ahead() const { return false; }
  // What the classes are called, by index; empty where nobody has named them.
  const std::vector<std::string>& class_names() const { return class_names_; }
  // 1 when every sample is grey by format (IDX), else 3.
  virtual int channels() const { return 3; }
  // Height and width of every sample where they are fixed raw pixels (IDX, CIFAR), else 0.
  virtual int fixed_height() const { return 0; }
  virtual int fixed_width() const { return 0; }

protected:
  std::vector<std::string> class_names_;  // for the constructor to fill in
};

// Which part of a data set.
enum class Split : uint8_t { train, validation };

// Image folders and archives are listed, and the headers of their pictures and of those of lists read, once: what was
// found is kept in $XDG_CACHE_HOME/convolt/index/ (~/.cache/convolt/index/). Each later start asks the file system for
// the length and change time of every file and reads only what has changed. Without an index, or where it cannot be
// kept, nothing but time is different.
struct IndexOptions {
  bool use = true;                                               // false: neither read nor made
  int threads = 0;                                               // that make or check it, 0 for as many as cores
  std::function<void(int64_t done, int64_t all)> progress = {};  // of making it, in pictures; by one thread at a time
};

// What open_dataset() opens.
struct DatasetOptions {
  std::string path;             // a folder or a file
  std::string format = "auto";  // one of dataset_formats(); auto: found out by looking at the path
  Split split = Split::train;   // which part
  IndexOptions index = {};      // of folders, archives and lists
};

// "auto, packed, ... or folder".
std::string dataset_formats();

// Opens a data set: an image folder (train/<class>/*, val|validation|valid|test/<class>/*, or <class>/* itself), a
// packed set (convolt/pack.h; the file, the first of its shards, or a folder that holds it and no folders), an archive
// of an image folder, WebDataset shards, a list of pictures (CSV, TSV or JSON lines), CIFAR-10 or CIFAR-100 binary
// records (data_batch_*.bin, test_batch*.bin; train.bin, test.bin), IDX files, plain or .gz (train-*, t10k-*), or NumPy
// arrays: docs/data.md. Throws DataError or FormatError. A data set without the asked split: nullptr for validation
// (then there is none), DataError for train.
std::unique_ptr<Dataset> open_dataset(const DatasetOptions& options);

// Those samples of `data` in that order, each of 0 .. data->size() - 1.
std::unique_ptr<Dataset> subset(std::shared_ptr<const Dataset> data, std::vector<int64_t> samples);
// `count` samples of the data set, at most all, in increasing order. Each class has its part of them, to the nearest
// whole number; which ones is a pure function of seed, data set and count. Reads all labels.
std::vector<int64_t> stratified_sample(const Dataset& data, int64_t count, uint64_t seed);

// Picture files by path, without labels. A file that cannot be read is found when it is read.
std::unique_ptr<Dataset> picture_files(std::vector<std::string> paths);

}  // namespace convolt
