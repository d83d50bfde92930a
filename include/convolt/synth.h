// A made data set: textured shapes as JPEG files in an image folder, for trying the engine without a download. The
// training pictures show each shape upright, centred, at nearly one scale and in one mirror orientation; the validation
// pictures show it turned, at other scales, off centre and mirrored. So a network needs augmentation (zoom, rotate,
// flip, translate) to do well.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

namespace convolt {

// What is drawn.
struct SynthOptions {
  static constexpr int kMaxClasses = 16;  // shapes there are
  std::string output;         // folder, made when missing; gets train/<class>/NNN.jpg and val/<class>/NNN.jpg
  int classes = 8;            // 2 to kMaxClasses
  int train_per_class = 100;  // at least 1
  int val_per_class = 25;     // at least 0; 0: no val folder
  int min_side = 64;          // of the pictures, drawn for each between these two; 16 to 4096
  int max_side = 128;         // the other of the two
  uint64_t seed = 0;          // another seed, another set
  int jpeg_quality = 90;      // 1 to 100
  int threads = 2;            // the files do not depend on it
  const std::atomic<int>* interrupt = nullptr;  // ends it with an Error when it becomes non-zero
};

// Writes the set; each file appears whole, by rename. Every pixel is a pure function of (seed, split, class, number),
// apart from the rounding of the OpenCV build. Throws UsageError for options out of range and for an output folder that
// is not empty, Error when a file cannot be written; then there is no folder.
void make_synthetic_dataset(const SynthOptions& options);

}  // namespace convolt
