// A device decoder for the CPU as a device: its device half really runs later, on the copy queue, and reads memory that
// its host half has written, so that what is reused too early is a wrong pixel or a finding of a sanitizer.
#pragma once

#include <array>
#include <atomic>
#include <cstring>
#include <functional>

#include "convolt/error.h"
#include "data/device_decoder.h"
#include "test_files.h"

namespace convolt::test {

class FakeDeviceDecoder final : public DeviceDecoder {
public:
  // What the test sees and says; outlives the decoder.
  struct Script {
    // A file that the host's half will not have, or fails at; what the device's half does before it writes.
    std::function<bool(std::span<const uint8_t>)> accepts = [](std::span<const uint8_t>) { return true; };
    std::function<void()> on_write, on_device = [] {};
    std::atomic<int> read{0}, written{0}, workers{0};
  };
  FakeDeviceDecoder(Context& context, Script& script) : context_(context), script_(script) {}

  std::unique_ptr<Worker> make_worker() override { return std::make_unique<FakeWorker>(context_, script_); }

  // Its pixels, of those that the CPU's decoder makes.
  static uint8_t made_of(uint8_t pixel) { return static_cast<uint8_t>(255 - pixel); }

private:
  class FakeWorker final : public Worker {
  public:
    FakeWorker(Context& context, Script& script) : context_(context), script_(script) { ++script_.workers; }
    ~FakeWorker() override { --script_.workers; }

    bool read(std::span<const uint8_t> file, const Region& region) override {
      if (!script_.accepts(file)) return false;
      Picture& p = pictures_[next_];
      p.written.wait();
      RawSample sample;
      sample.bytes.assign(file.begin(), file.end());
      p.pixels.resize(static_cast<size_t>(decoded_size(sample, {}).bytes()));
      const auto choose = [&](const PictureSize&) { return Wanted{region, 1}; };
      const Region part = decode_region(sample, {}, choose, p.pixels, "fake").region;
      crop(p.pixels, part, region);
      ++script_.read;
      return true;
    }

    void write(uint8_t* rgb) override {
      if (script_.on_write) script_.on_write();
      Picture& p = pictures_[next_];
      next_ = (next_ + 1) % pictures_.size();
      context_.copies().run([&p, rgb, &script = script_](Stream) {
        script.on_device();
        for (size_t i = 0; i < p.pixels.size(); ++i) rgb[i] = made_of(p.pixels[i]);
        ++script.written;
      });
      p.written = context_.copies().record();
    }

  private:
    struct Picture {
      Bytes pixels;
      Event written;
    };

    static void crop(Bytes& pixels, const Region& have, const Region& want) {
      Bytes kept;
      for (int y = 0; y < want.height; ++y) {
        const auto row = pixels.begin() + ((want.top - have.top + y) * have.width + want.left - have.left) * 3;
        kept.insert(kept.end(), row, row + want.width * 3);
      }
      pixels = std::move(kept);
    }

    Context& context_;
    Script& script_;
    std::array<Picture, 2> pictures_;
    size_t next_ = 0;
  };

  Context& context_;
  Script& script_;
};

}  // namespace convolt::test
