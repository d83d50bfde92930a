// nvJPEG on a card: its pixels beside those of the CPU's decoder, the loader's batches, and a training.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "convolt/layers.h"
#include "convolt/trainer.h"
#include "data/device_decoder.h"
#include "data/exif.h"
#include "data/jpeg_writer.h"
#include "data/loader_fixture.h"
#include "support/device.h"
#include "support/temp_folder.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

const std::vector<JpegKind> kPlain{{"4:2:0"},
                                   {"4:2:2", 2, 1},
                                   {"4:4:4", 1, 1},
                                   {"grey", 1, 1, JCS_GRAYSCALE},
                                   {"restarts", 2, 2, JCS_YCbCr, {}, false, 3}};

class Nvjpeg : public LoaderTest {
protected:
  void SetUp() override {
    LoaderTest::SetUp();
    if (IsSkipped()) return;
    try {
      decoder_ = make_nvjpeg_decoder(context());
    } catch (const DeviceError& e) {
      if (std::string(e.what()).find("was not found") == std::string::npos) throw;
      GTEST_SKIP() << e.what();
    }
  }

  // As the decoder makes it on the device.
  Bytes made(DeviceDecoder::Worker& worker, const Bytes& file, const Region& region) const {
    const int64_t size = int64_t{region.height} * region.width * 3;
    const Buffer pixels(context(), size);
    if (!worker.read(file, region)) return {};
    worker.write(pixels.as<uint8_t>());
    Bytes host(static_cast<size_t>(size));
    context().copies().copy(host.data(), pixels.data(), size);
    context().copies().synchronize();
    return host;
  }

  std::unique_ptr<DeviceDecoder> decoder_;
};

struct Difference {
  double sum = 0;
  int64_t count = 0;
  int most = 0;

  void add(uint8_t a, uint8_t b) {
    const int apart = std::abs(int{a} - int{b});
    sum += apart;
    ++count;
    most = std::max(most, apart);
  }
  double mean() const { return count == 0 ? 0 : sum / static_cast<double>(count); }
};

// Of the part that is wanted; what lies around it in the region, nobody reads.
Difference difference(const Bytes& made, const Region& region, const Bytes& whole, int width, const Region& wanted) {
  Difference d;
  for (int y = wanted.top; y < wanted.top + wanted.height; ++y)
    for (int i = 3 * wanted.left; i < 3 * (wanted.left + wanted.width); ++i)
      d.add(made[static_cast<size_t>((y - region.top) * region.width * 3 + i - 3 * region.left)],
            whole[static_cast<size_t>(y * width * 3 + i)]);
  return d;
}

TEST_P(Nvjpeg, PixelsAreTheCpusButForRoundings) {
  const auto worker = decoder_->make_worker();
  for (const JpegKind& kind : kPlain) {
    Difference all;
    for (const PictureSize& size :
         {PictureSize{375, 500, 3}, {97, 131, 3}, {64, 96, 3}, {33, 250, 3}, {241, 17, 3}, {5, 61, 3}, {1, 1, 3}}) {
      const int w = size.width, h = size.height;
      RawSample sample;
      sample.bytes = write_jpeg(kind, w, h);
      Bytes whole(static_cast<size_t>(size.bytes()));
      decode(sample, {}, whole, kind.name);
      for (const Region& wanted : {Region{0, 0, w, h},
                                   {w / 3, h / 4, (w + 1) / 2, (h + 1) / 2},
                                   {w / 2, 0, 1, h},
                                   {w - (w + 4) / 5, h - (h + 4) / 5, (w + 4) / 5, (h + 4) / 5}}) {
        const Region region = region_on_device(wanted, size);
        const Bytes found = made(*worker, sample.bytes, region);
        ASSERT_FALSE(found.empty()) << kind.name << " " << w << " x " << h << ": refused";
        const Difference d = difference(found, region, whole, w, wanted);
        EXPECT_LE(d.mean(), 1.5) << kind.name << " " << w << " x " << h << " from " << wanted.left << ", " << wanted.top
                                 << ": at most " << d.most;
        all.sum += d.sum;
        all.count += d.count;
        all.most = std::max(all.most, d.most);
      }
    }
    std::printf("%s: nvJPEG is %.3f levels from the CPU in the mean, %d at most\n", kind.name.c_str(), all.mean(),
                all.most);
  }
}

TEST_P(Nvjpeg, SaysNoToWhatIsNoJpegAndGoesOn) {
  const auto worker = decoder_->make_worker();
  const Bytes good = write_jpeg({"4:2:0"}, 100, 80);
  const Bytes expected = made(*worker, good, {0, 0, 100, 80});
  ASSERT_FALSE(expected.empty());
  EXPECT_TRUE(made(*worker, bytes_of("not a picture"), {0, 0, 16, 16}).empty());
  EXPECT_TRUE(made(*worker, Bytes(good.begin(), good.begin() + 100), {0, 0, 16, 16}).empty());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(made(*worker, good, {0, 0, 100, 80}), expected) << "the same bits each time";
}

// Kinds of all sorts, one cut short and one that is no picture.
MemoryDataset mixed_set() {
  MemoryDataset set(24);
  for (int i = 0; i < 24; ++i) {
    JpegKind kind = kPlain[static_cast<size_t>(i) % kPlain.size()];
    kind.progressive = i % 7 == 6;
    const Bytes file = write_jpeg(kind, 90 + 11 * i, 200 - 5 * i);
    set.put(i, i % 6 == 5 ? with_exif(file, 1 + i % 8, false) : file);
  }
  const Bytes cut = write_jpeg({"4:2:0"}, 100, 80);
  set.put(3, Bytes(cut.begin(), cut.end() - 200));
  set.spoil(8);
  return set;
}

TEST_P(Nvjpeg, BatchesAreTheCpusButForRoundings) {
  const MemoryDataset set = mixed_set();
  LoaderOptions o = options(6, 4);
  o.decode.max_side = 400;
  o.decode.full_decode = true;
  o.augment.height = o.augment.width = 64;
  const auto plain = Loader::create(context(), set, o);
  const auto expected = take(*plain, 6, 12);
  o.decoder = Decoder::nvjpeg;
  const auto loader = Loader::create(context(), set, o);
  const auto found = take(*loader, 6, 12);
  Difference d;
  for (size_t b = 0; b < 12; ++b)
    for (size_t r = 0; r < 6; ++r) {
      Row row = found[b][r];
      ASSERT_EQ(row.pixels.size(), expected[b][r].pixels.size());
      for (size_t i = 0; i < row.pixels.size(); ++i) d.add(row.pixels[i], expected[b][r].pixels[i]);
      row.pixels = expected[b][r].pixels;
      EXPECT_EQ(row, expected[b][r]) << b << " " << r;
    }
  EXPECT_LE(d.mean(), 1.5);
  EXPECT_GT(d.most, 0) << "the device made none of them";
  std::printf("batches: nvJPEG is %.3f levels from the CPU in the mean, %d at most\n", d.mean(), d.most);
  const auto by_name = [](const BadSample& a, const BadSample& b) { return a.name < b.name; };
  auto bad = loader->bad_samples(), bad_before = plain->bad_samples();
  std::sort(bad.begin(), bad.end(), by_name);
  std::sort(bad_before.begin(), bad_before.end(), by_name);
  ASSERT_EQ(bad.size(), bad_before.size());
  for (size_t i = 0; i < bad.size(); ++i) EXPECT_EQ(bad[i].reason, bad_before[i].reason) << bad[i].name;
  for (const int threads : {1, 8}) {
    o.threads = threads;
    EXPECT_EQ(hash_of(take(*Loader::create(context(), set, o), 6, 12)), hash_of(found)) << threads << " threads";
  }
}

TEST_P(Nvjpeg, TrainsAsWithTheCpusDecoderAndTellsWhenThatChanges) {
  const MemoryDataset set = mixed_set();
  const TempFolder folder;
  ModelCard card;
  card.model = "small";
  card.classes = 5;
  card.height = card.width = 32;
  card.configuration = "{}";
  TrainOptions o;
  o.batch = 6;
  o.steps = 8;
  o.log_every = 1;
  o.seed = 3;
  o.schedule.base = 0.01;
  o.kernels.autotune = Autotune::off;
  o.decode.full_decode = true;
  o.augment.height = o.augment.width = o.preprocessing.height = o.preprocessing.width = 32;
  std::string warnings;
  const auto losses = [&](Decoder decoder) {
    Graph g;
    Value x = g.input("image", {32, 32, 3});
    x = relu(batch_norm(conv2d(x, 16, {.stride = 2, .padding = 1})));
    g.output(linear(global_avg_pool(x), 5));
    Params params(context(), g, 1);
    o.decoder = decoder;
    std::vector<double> all;
    TrainObserver observer;
    observer.progress = [&](const TrainProgress& p) { all.push_back(p.loss); };
    observer.warning = [&](const std::string& w) { warnings += w + "\n"; };
    train(g, params, set, nullptr, card, o, observer);
    return all;
  };
  const auto cpu = losses(Decoder::cpu);
  o.output_dir = folder.path("run");
  const auto device = losses(Decoder::nvjpeg);
  ASSERT_EQ(device.size(), cpu.size());
  for (size_t i = 0; i < cpu.size(); ++i) EXPECT_NEAR(device[i], cpu[i], 0.05 * cpu[i]) << "step " << i;
  o.resume = folder.path("run/last.safetensors");
  o.steps = 10;
  losses(Decoder::nvjpeg);
  EXPECT_THAT(warnings, testing::Not(HasSubstr("resuming on")));
  o.steps = 12;
  losses(Decoder::cpu);
  EXPECT_THAT(warnings, HasSubstr(", JPEGs by nvJPEG'"));
}

INSTANTIATE_TEST_SUITE_P(Cuda, Nvjpeg, testing::Values(Device::cuda()), device_name);

}  // namespace
}  // namespace convolt::test
