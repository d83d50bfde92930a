// Packed sets: a data set as one aligned file (or a few shards), mapped and read in any order, with a checksum for the
// index and for each sample. docs/packed-format.md has the bytes.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "convolt/loader.h"

namespace convolt {

// What of a picture is kept.
enum class PackAs : uint8_t {
  files,   // the encoded file, bit for bit
  pixels,  // decoded: upright u8 RGB, or grey where the source is grey pixels
  jpeg,    // what is no JPEG becomes one of quality 95
};

// What pack_dataset() reads and writes.
struct PackOptions {
  std::string data_path, format = "auto";  // as for open_dataset()
  std::string output;                      // ends in .cvt; of several shards set-00000-of-00004.cvt and so on
  PackAs as = PackAs::files;               // how pictures are stored
  int max_side = 0;        // pictures with a longer side are shrunk to it and stored as JPEG, or as pixels; 0: none are
  int shards = 1;          // 1 to 99,999, each of as many pictures
  int threads = 2;         // the bytes do not depend on it
  bool overwrite = false;  // what is at `output`, whole or half done, goes, and nothing of it is taken over
  bool fail_on_bad = false;                                         // else pictures that cannot be read are left out
  std::function<void(int64_t done, int64_t all)> on_progress = {};  // pictures; called by one thread at a time
};

// What a set was packed into.
struct PackResult {
  int64_t train = 0, validation = 0;  // pictures
  int64_t bytes = 0;                  // of all shards
  std::vector<BadSample> left_out;    // they could not be read, or not be decoded where that was needed
};

// Packs training and validation split. Each file is written as NAME.partial beside NAME.partial-journal and appears by
// rename; where a run is cut off, the same call goes on behind its last whole picture, to the same bytes. Throws
// UsageError for options that make no sense and an output that is there, DataError for the source, Error when a file
// cannot be written: then the partial file stays.
PackResult pack_dataset(const PackOptions& options);

// What unpack_dataset() reads and writes.
struct UnpackOptions {
  std::string input;      // a packed set
  std::string output;     // a folder, empty or not there; gets train/<class>/<name> and val/<class>/<name>
  int threads = 2;        // that read and write
  bool skip_bad = false;  // samples that are damaged, or whose name leads out of the output, are left out
  const std::atomic<int>* interrupt = nullptr;  // ends it with an Error when it becomes non-zero
};

// What a set was unpacked into.
struct UnpackResult {
  int64_t pictures = 0;
  std::vector<BadSample> left_out;  // in the order of the set
};

// Writes files as they were packed, pixels as PNG (NAME.png). The folder appears by rename when all are there. Throws
// UsageError for an output that is not empty, DataError for a bad sample without skip_bad, Error when a file cannot be
// written; then there is no folder.
UnpackResult unpack_dataset(const UnpackOptions& options);

}  // namespace convolt
