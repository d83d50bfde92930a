// A data set in memory, and batches read back, for the loader tests on every device.
#pragma once

#include <gmock/gmock.h>

#include <cstddef>
#include <cstring>
#include <functional>

#include "augment.h"
#include "convolt/error.h"
#include "convolt/loader.h"
#include "data/packed_format.h"
#include "support/device.h"
#include "test_files.h"

namespace convolt::test {

// Small pictures of many sizes in memory. Sample i has label i % 5; some are not pictures, some throw.
class MemoryDataset : public Dataset {
public:
  explicit MemoryDataset(int size) {
    for (int i = 0; i < size; ++i) files_.push_back(numbered_ppm(1 + i % 7, 1 + i % 5, i));
  }
  void spoil(int i) { files_[static_cast<size_t>(i)] = bytes_of("not a picture"); }
  // Good header, broken picture.
  void cut(int i) { files_[static_cast<size_t>(i)] = bytes_of("P3 2 2 255 1 2 3 x"); }
  void put(int i, Bytes file) { files_[static_cast<size_t>(i)] = std::move(file); }
  void fail(int i) { failing_ = i; }

  int64_t size() const override { return static_cast<int64_t>(files_.size()); }
  int32_t label(int64_t i) const override { return static_cast<int32_t>(i % 5); }
  std::string name(int64_t i) const override { return "sample" + std::to_string(i); }
  std::string describe() const override { return "memory"; }
  RawSample read(int64_t i) const override {
    if (on_read) on_read();
    if (i == failing_) throw std::runtime_error("the disk is on fire");
    RawSample sample;
    sample.bytes = files_[static_cast<size_t>(i)];
    return sample;
  }
  bool reads_parts() const override { return true; }
  size_t read_part(int64_t i, int64_t offset, std::span<uint8_t> into) const override {
    const Bytes& file = files_[static_cast<size_t>(i)];
    const size_t count = std::min(into.size(), file.size() - std::min(file.size(), static_cast<size_t>(offset)));
    std::memcpy(into.data(), file.data() + offset, count);
    return count;
  }

  std::function<void()> on_read;  // called by read(), not by read_part()

private:
  std::vector<Bytes> files_;
  int64_t failing_ = -1;
};

// All that a record says, without the padding between.
inline Bytes content_of(const SampleRecord& r) {
  Bytes all;
  const auto add = [&](const void* bytes, size_t count) {
    const auto* const begin = static_cast<const uint8_t*>(bytes);
    all.insert(all.end(), begin, begin + count);
  };
  add(&r, offsetof(RowRecord, erase_value) + sizeof(RowRecord::erase_value));
  add(&r.erase_key, sizeof r.erase_key);
  const PictureProgramme& p = r.programme;
  add(&p.count, sizeof p.count);
  for (int i = 0; i < p.count; ++i) {
    add(&p.steps[i].op, sizeof p.steps[i].op);
    add(&p.steps[i].a, sizeof p.steps[i].a);
    add(&p.steps[i].b, sizeof p.steps[i].b);
  }
  add(&p.key, sizeof p.key);
  add(p.map, sizeof p.map);
  return all;
}

// The pixels of the record's box, in a picture or part of one that lies as the record says, counted from `pixels`.
inline Bytes box_pixels(const SampleRecord& r, const uint8_t* pixels) {
  Bytes box;
  for (auto y = static_cast<int64_t>(r.box[1]); y < static_cast<int64_t>(r.box[3]); ++y) {
    const int64_t row = r.offset + y * r.stride * r.channels;
    box.insert(box.end(), pixels + (row + static_cast<int64_t>(r.box[0]) * r.channels),
               pixels + (row + static_cast<int64_t>(r.box[2]) * r.channels));
  }
  return box;
}

// A row as the network will see it. The box's pixels are compared themselves, not where they lie.
struct Row {
  int64_t sample = 0;
  int32_t label = 0;
  float weight = 0;
  int skipped = 0;
  SampleRecord record;
  Bytes pixels;
  RowMix mix;

  friend bool operator==(const Row& a, const Row& b) {
    return a.sample == b.sample && a.label == b.label && a.weight == b.weight && a.skipped == b.skipped &&
           content_of(a.record) == content_of(b.record) && a.pixels == b.pixels &&
           std::memcmp(&a.mix, &b.mix, sizeof a.mix) == 0;
  }
};

// Of all that a network sees of batches, in their order: records but for where the pictures lie, pixels, labels,
// weights.
inline uint64_t hash_of(const std::vector<std::vector<Row>>& batches) {
  Bytes all;
  const auto add = [&](const void* bytes, size_t count) {
    const auto* const begin = static_cast<const uint8_t*>(bytes);
    all.insert(all.end(), begin, begin + count);
  };
  for (const auto& batch : batches)
    for (const Row& row : batch) {
      add(&row.sample, sizeof row.sample);
      add(&row.label, sizeof row.label);
      add(&row.weight, sizeof row.weight);
      add(&row.skipped, sizeof row.skipped);
      const Bytes record = content_of(row.record);
      add(record.data(), record.size());
      add(row.pixels.data(), row.pixels.size());
      add(&row.mix, sizeof row.mix);
    }
  return packed_hash(all);
}

class LoaderTest : public testing::TestWithParam<Device> {
protected:
  void SetUp() override {
    if (GetParam().is_cuda() && cuda_device_count() == 0) GTEST_SKIP() << cuda_unavailable_reason();
  }
  Context& context() const { return context_of(GetParam()); }

  static LoaderOptions options(int batch, int threads = 2) {
    LoaderOptions o;
    o.batch = batch;
    o.threads = threads;
    o.seed = 42;
    o.augment.height = o.augment.width = 4;
    o.augment.hflip = 0.5F;
    return o;
  }

  template <class T>
  std::vector<T> from_device(const T* device, int64_t count) const {
    std::vector<T> host(static_cast<size_t>(count));
    context().compute().copy(host.data(), device, count * static_cast<int64_t>(sizeof(T)));
    context().compute().synchronize();
    return host;
  }

  std::vector<Row> rows_of(const Batch& batch, int size) const {
    const auto records = from_device(batch.records, size);
    const auto labels = from_device(batch.labels, size);
    const auto weights = from_device(batch.weights, size);
    const auto mixes =
        batch.mixes != nullptr ? from_device(batch.mixes, size) : std::vector<RowMix>(static_cast<size_t>(size));
    int64_t end = 0;  // of the pixels
    for (const SampleRecord& r : records)
      if (r.height > 0)
        end = std::max(
            end,
            r.offset + ((static_cast<int64_t>(r.box[3]) - 1) * r.stride + static_cast<int64_t>(r.box[2])) * r.channels);
    const Bytes pixels = from_device(batch.pixels, end);
    std::vector<Row> rows(static_cast<size_t>(size));
    for (size_t r = 0; r < rows.size(); ++r) {
      rows[r] = {batch.samples[r], labels[r],  weights[r],
                 batch.skipped[r], records[r], box_pixels(records[r], pixels.data()),
                 mixes[r]};
      rows[r].record.offset = rows[r].record.stride = 0;
    }
    return rows;
  }

  // The next `count` batches, or all of an evaluation.
  std::vector<std::vector<Row>> take(Loader& loader, int batch_size, int count) const {
    std::vector<std::vector<Row>> batches;
    Batch batch;
    while (static_cast<int>(batches.size()) < count && loader.next(batch)) {
      batches.push_back(rows_of(batch, batch_size));
      loader.release(batch);
    }
    return batches;
  }
};

inline std::string device_name(const testing::TestParamInfo<Device>& param) {
  return param.param.is_cuda() ? "cuda" : "cpu";
}

}  // namespace convolt::test
