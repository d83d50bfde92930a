// The loader with a decoder whose pixels are made on the device's queue: which samples go there, where they lie, what
// becomes of bad ones, and that nothing is used too early.
#include "data/device_decoder.h"

#include <chrono>
#include <map>
#include <thread>

#include "augment/policy.h"
#include "exif.h"
#include "fake_device_decoder.h"
#include "jpeg_writer.h"
#include "loader_fixture.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST(RegionOnDevice, HasWholeBlocksAndTheNeighboursOfCoarserChroma) {
  const PictureSize size{90, 200, 3};
  EXPECT_EQ(region_on_device({40, 20, 30, 30}, size), (Region{32, 16, 48, 48}));
  EXPECT_EQ(region_on_device({33, 17, 30, 30}, size), (Region{16, 0, 64, 64})) << "a pixel beyond two blocks each way";
  EXPECT_EQ(region_on_device({34, 18, 28, 28}, size), (Region{32, 16, 32, 32}));
  EXPECT_EQ(region_on_device({0, 0, 200, 90}, size), (Region{0, 0, 200, 90}));
  EXPECT_EQ(region_on_device({199, 89, 1, 1}, size), (Region{192, 80, 8, 10}));
  EXPECT_EQ(region_on_device({0, 0, 1, 1}, {1, 1, 3}), (Region{0, 0, 1, 1}));
  EXPECT_EQ(region_on_device({3, 2, 1, 1}, {5, 6, 3}), (Region{0, 0, 6, 5}));
}

// Plain JPEGs and all that goes to the CPU instead.
struct Mixed {
  explicit Mixed(int copies = 1) : dataset(kKinds * copies) {
    for (int c = 0; c < copies; ++c) {
      put({"4:2:0"}, true, 0);
      put({"4:4:4", 1, 1}, true, 0);
      put({"grey", 1, 1, JCS_GRAYSCALE}, true, 0);
      put({"restarts", 2, 1, JCS_YCbCr, {}, false, 3}, true, 0);
      put({"progressive", 2, 2, JCS_YCbCr, {}, true}, false, 0);
      put({"CMYK", 1, 1, JCS_CMYK}, false, 0);
      put({"4:1:1", 4, 1}, false, 0);
      put({"upright"}, true, 1);
      put({"turned"}, false, 6);
      put({"large"}, false, 0, 3);  // is shrunk
      add(numbered_ppm(20, 30, c), false);
      const Bytes cut = write_jpeg({"4:2:0"}, 60, 50);
      add(Bytes(cut.begin(), cut.end() - 40), false);
    }
  }

  MemoryDataset dataset;
  std::vector<bool> on_device;
  static constexpr int kKinds = 12;

private:
  void put(const JpegKind& kind, bool device, int orientation, int times = 1) {
    const int i = static_cast<int>(on_device.size()) % kKinds;
    const Bytes file = write_jpeg(kind, times * (70 + 3 * i), times * (110 - 5 * i));
    add(orientation > 0 ? with_exif(file, orientation, false) : file, device);
  }
  void add(Bytes file, bool device) {
    dataset.put(static_cast<int>(on_device.size()), std::move(file));
    on_device.push_back(device);
  }
};

class DeviceDecoding : public LoaderTest {
protected:
  static LoaderOptions cropping(int batch, int threads) {
    LoaderOptions o = options(batch, threads);
    o.decode.max_side = 150;
    o.decode.full_decode = true;
    return o;
  }
  std::unique_ptr<Loader> faked(const Dataset& dataset, const LoaderOptions& o) {
    return make_loader(context(), dataset, o, std::make_unique<FakeDeviceDecoder>(context(), script_));
  }
  static std::map<std::string, std::string> bad_of(const Loader& loader) {
    std::map<std::string, std::string> bad;
    for (const BadSample& b : loader.bad_samples()) bad[b.name] = b.reason;
    return bad;
  }
  // The CPU decoder's batches as the fake makes them.
  static std::vector<std::vector<Row>> remade(std::vector<std::vector<Row>> batches, const Mixed& mixed) {
    for (auto& batch : batches)
      for (Row& row : batch)
        if (row.sample >= 0 && mixed.on_device[static_cast<size_t>(row.sample)])
          for (uint8_t& pixel : row.pixels) pixel = FakeDeviceDecoder::made_of(pixel);
    return batches;
  }

  FakeDeviceDecoder::Script script_;
};

TEST_P(DeviceDecoding, PlainJpegsAreMadeThereAndAllElseHere) {
  const Mixed mixed(3);
  for (const bool training : {true, false}) {
    LoaderOptions o = cropping(7, 3);
    o.training = training;
    const auto expected = remade(take(*Loader::create(context(), mixed.dataset, o), 7, 16), mixed);
    script_.written = 0;
    for (const int threads : {1, 2, 8}) {
      o.threads = threads;
      EXPECT_EQ(take(*faked(mixed.dataset, o), 7, 16), expected) << threads << " threads";
    }
    EXPECT_GE(script_.written, 3 * 15) << "of 36 samples 15 go to the device";
  }
  EXPECT_EQ(script_.workers, 0);
}

// What the CPU decodes at a half or less, since the crop has pixels to spare, the CPU decodes.
TEST_P(DeviceDecoding, WhatIsWantedCoarserIsTheCpus) {
  const Mixed mixed(1);
  LoaderOptions o = cropping(6, 2);
  o.training = false;
  o.decode.full_decode = false;
  const auto expected = take(*Loader::create(context(), mixed.dataset, o), 6, 2);
  EXPECT_EQ(take(*faked(mixed.dataset, o), 6, 2), expected);
  EXPECT_EQ(script_.read, 0);
  o.augment.height = o.augment.width = 64;
  o.augment.interpolation = AugmentOptions::Interpolation::nearest;
  take(*faked(mixed.dataset, o), 6, 2);
  EXPECT_EQ(script_.read, 5) << "its own pixels are wanted";
}

TEST_P(DeviceDecoding, ResumesToTheSameBits) {
  const Mixed mixed(2);
  LoaderOptions o = cropping(5, 3);
  const auto whole = take(*faked(mixed.dataset, o), 5, 12);
  o.first_step = 5;
  EXPECT_EQ(take(*faked(mixed.dataset, o), 5, 7), std::vector(whole.begin() + 5, whole.end()));
}

// Of every policy: the same samples, rows and reasons as without.
TEST_P(DeviceDecoding, BadFilesAreBadForTheSameReasons) {
  Mixed mixed(2);
  mixed.dataset.spoil(0);
  for (const BadSamplePolicy policy : {BadSamplePolicy::replace, BadSamplePolicy::skip}) {
    LoaderOptions o = cropping(6, 3);
    o.bad_samples = policy;
    const auto plain = Loader::create(context(), mixed.dataset, o), loader = faked(mixed.dataset, o);
    EXPECT_EQ(take(*loader, 6, 12), remade(take(*plain, 6, 12), mixed));
    EXPECT_EQ(bad_of(*loader).size(), 3U);
    EXPECT_EQ(bad_of(*loader), bad_of(*plain));
  }
  LoaderOptions o = cropping(6, 1);
  o.training = false;
  o.bad_samples = BadSamplePolicy::fail;
  mixed.dataset.put(0, write_jpeg({"good"}, 30, 30));
  EXPECT_THAT(message_of<DataError>([&] { take(*faked(mixed.dataset, o), 6, 9); }),
              StartsWith("sample11: the JPEG ends before its picture does"));
}

TEST_P(DeviceDecoding, WhatTheHostsHalfRefusesIsTheCpusToJudge) {
  const Mixed mixed(2);
  const LoaderOptions o = cropping(6, 3);
  script_.accepts = [](std::span<const uint8_t> file) { return file.size() % 2 == 0; };
  Mixed accepted(2);
  int refused = 0;
  for (size_t i = 0; i < accepted.on_device.size(); ++i)
    if (accepted.on_device[i] && mixed.dataset.read(static_cast<int64_t>(i)).bytes.size() % 2 == 1) {
      accepted.on_device[i] = false;
      ++refused;
    }
  ASSERT_GT(refused, 0);
  EXPECT_EQ(take(*faked(mixed.dataset, o), 6, 12),
            remade(take(*Loader::create(context(), mixed.dataset, o), 6, 12), accepted));
}

TEST_P(DeviceDecoding, AFailingDeviceEndsItWithTheNameOfTheSample) {
  const Mixed mixed(1);
  LoaderOptions o = cropping(4, 2);
  o.training = false;
  script_.accepts = [](std::span<const uint8_t>) -> bool { throw DeviceError("the engine is gone"); };
  EXPECT_EQ(message_of<DeviceError>([&] { take(*faked(mixed.dataset, o), 4, 9); }), "sample0: the engine is gone");
  script_.accepts = [](std::span<const uint8_t>) -> bool { throw OutOfMemoryError("no memory"); };
  EXPECT_EQ(message_of<OutOfMemoryError>([&] { take(*faked(mixed.dataset, o), 4, 9); }), "sample0: no memory");
  script_.accepts = [](std::span<const uint8_t>) { return true; };
  script_.on_write = [] { throw DeviceError("no pixels"); };
  EXPECT_EQ(message_of<DeviceError>([&] { take(*faked(mixed.dataset, o), 4, 9); }), "sample0: no pixels");
}

// As any other error of the queue: whoever waits for the batch meets it.
TEST_P(DeviceDecoding, WhatFailsInTheQueueSurfacesWithTheBatch) {
  const Mixed mixed(1);
  LoaderOptions o = cropping(4, 1);
  o.training = false;
  const auto own = Context::create(GetParam());
  script_.on_device = [] { throw DeviceError("a kernel failed"); };
  const auto loader = make_loader(*own, mixed.dataset, o, std::make_unique<FakeDeviceDecoder>(*own, script_));
  Batch batch;
  const std::string message = message_of<DeviceError>([&] {
    loader->next(batch);
    own->compute().synchronize();
  });
  EXPECT_THAT(message, HasSubstr("a kernel failed"));
}

// The device's block is not written while work that was submitted before release() still reads it.
TEST_P(DeviceDecoding, ReleasedBlocksAreWrittenOnlyAfterTheComputeQueue) {
  const Mixed mixed(2);
  LoaderOptions o = cropping(6, 4);
  o.slots = 2;
  const auto expected = take(*faked(mixed.dataset, o), 6, 10);
  const auto loader = faked(mixed.dataset, o);
  std::vector<Bytes> pixels(10);
  std::vector<std::vector<SampleRecord>> records(10, std::vector<SampleRecord>(6));
  const int64_t room = loader->slot_bytes();
  for (size_t i = 0; i < pixels.size(); ++i) {
    Batch batch;
    ASSERT_TRUE(loader->next(batch));
    context().compute().run([](Stream) { std::this_thread::sleep_for(std::chrono::milliseconds(5)); });
    const int64_t before = batch.pixels - reinterpret_cast<const uint8_t*>(batch.records);
    pixels[i].resize(static_cast<size_t>(room - before));
    context().compute().copy(pixels[i].data(), batch.pixels, room - before);
    context().compute().copy(records[i].data(), batch.records, 6 * sizeof(SampleRecord));
    loader->release(batch);
  }
  context().compute().synchronize();
  for (size_t i = 0; i < pixels.size(); ++i)
    for (size_t r = 0; r < 6; ++r)
      EXPECT_EQ(box_pixels(records[i][r], pixels[i].data()), expected[i][r].pixels) << i << " " << r;
}

// Also while the queue lags behind, with rows read and not written, and batches that nobody takes.
TEST_P(DeviceDecoding, StopsAndRestartsAtAnyMoment) {
  const Mixed mixed(4);
  script_.on_device = [] { std::this_thread::sleep_for(std::chrono::microseconds(300)); };
  for (int taken = 0; taken < 8; ++taken) {
    const auto loader = faked(mixed.dataset, cropping(8, 4));
    Batch batch;
    for (int i = 0; i < taken; ++i) {
      ASSERT_TRUE(loader->next(batch));
      if (i + 1 < taken || taken % 2 == 0) loader->release(batch);  // else it is still held at the end
    }
  }
  LoaderOptions o = cropping(8, 3);
  o.training = false;
  const auto loader = faked(mixed.dataset, o);
  const auto whole = take(*loader, 8, 100);
  for (int taken = 0; taken < 6; ++taken) {
    loader->restart();
    EXPECT_EQ(take(*loader, 8, taken), std::vector(whole.begin(), whole.begin() + taken));
  }
}

TEST_P(DeviceDecoding, WhatWasReadForTooLongIsNotWritten) {
  const Mixed mixed(1);
  LoaderOptions o = cropping(4, 1);
  o.training = false;
  o.max_decode_seconds = 0;  // everything takes longer
  const auto loader = faked(mixed.dataset, o);
  EXPECT_EQ(take(*loader, 4, 9).size(), 3U);
  EXPECT_EQ(loader->bad_samples().size(), 12U);
  EXPECT_GT(script_.read, 0);
  EXPECT_EQ(script_.written, 0);
}

// A file that grew since its header was read has no room in the slot.
TEST_P(DeviceDecoding, AFileThatGrewIsBadAsItIsWithoutADevice) {
  Mixed mixed(1);
  LoaderOptions o = cropping(4, 1);
  o.training = false;
  const auto loader = faked(mixed.dataset, o), plain = Loader::create(context(), mixed.dataset, o);
  take(*loader, 4, 3);
  take(*plain, 4, 3);
  mixed.dataset.put(0, write_jpeg({"4:2:0"}, 150, 150));
  for (Loader* l : {loader.get(), plain.get()}) {
    l->restart();
    take(*l, 4, 3);
  }
  EXPECT_THAT(bad_of(*loader)["sample0"], HasSubstr("did the file change after the loader was made?"));
  EXPECT_EQ(bad_of(*loader), bad_of(*plain));
}

TEST_P(DeviceDecoding, OptionsSayWhichDecoder) {
  const Mixed mixed(1);
  LoaderOptions o = cropping(4, 2);
  const auto automatic = take(*Loader::create(context(), mixed.dataset, o), 4, 6);
  o.decoder = Decoder::cpu;
  EXPECT_EQ(take(*Loader::create(context(), mixed.dataset, o), 4, 6), automatic);
  o.decoder = Decoder::nvjpeg;
  EXPECT_THAT(message_of<DeviceError>([&] { Loader::create(context(), mixed.dataset, o); }),
              HasSubstr("the decoder nvjpeg needs a CUDA device, found cpu"));
  o.resident = true;
  EXPECT_THAT(message_of<UsageError>([&] { faked(mixed.dataset, o); }),
              HasSubstr("decoder is nvjpeg: expected cpu or auto with a resident set"));
}

INSTANTIATE_TEST_SUITE_P(Cpu, DeviceDecoding, testing::Values(Device::cpu()), device_name);

}  // namespace
}  // namespace convolt::test
