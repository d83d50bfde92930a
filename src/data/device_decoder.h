// JPEGs whose pixels are made on the device: the host reads the Huffman codes, and of what they say the device makes
// the picture where the network will look for it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "convolt/context.h"
#include "convolt/loader.h"
#include "data/view.h"

namespace convolt {

// For is_plain_jpeg() files alone. All memory is that of the largest pictures so far.
class DeviceDecoder {
public:
  // What one thread has of it. A picture is read and then written; one that is not written makes way for the next.
  class Worker {
  public:
    virtual ~Worker() = default;
    // The host's half, of a part of the picture. False where it will not have the file: then the CPU's decoder has the
    // say. May wait until the device is done with earlier pictures. Throws DeviceError, OutOfMemoryError.
    virtual bool read(std::span<const uint8_t> file, const Region& region) = 0;
    // The device's half: queues with the copies that what was read becomes u8 [height, width, 3], rows packed, at `rgb`
    // in device memory. Throws DeviceError.
    virtual void write(uint8_t* rgb) = 0;
  };
  virtual ~DeviceDecoder() = default;
  // Must not outlive the decoder. Its work must have left the queue when it ends.
  virtual std::unique_ptr<Worker> make_worker() = 0;
};

// nvJPEG, with its Huffman decoder for the CPU. In nvjpeg.cpp, or nvjpeg_none.cpp where the build has no CUDA. Throws
// DeviceError that says what is missing.
std::unique_ptr<DeviceDecoder> make_nvjpeg_decoder(Context& context);

// What the options ask for; null for the CPU's decoder. Throws DeviceError.
std::unique_ptr<DeviceDecoder> make_device_decoder(Context& context, const LoaderOptions& options);

// Loader::create() with a decoder of the caller's, whatever the options ask for; null: the CPU's.
std::unique_ptr<Loader> make_loader(Context& context, const Dataset& dataset, const LoaderOptions& options,
                                    std::unique_ptr<DeviceDecoder> decoder);

// What is decoded so that the wanted part is right: whole blocks, with a neighbour of coarser chroma beside it.
Region region_on_device(const Region& wanted, const PictureSize& size);

// As decode_view(), of which `worker` has then read the picture; it fits into `room` bytes. Nothing where the picture
// is for the CPU's decoder: no plain JPEG, turned, decoded at a smaller size, refused, or broken.
std::optional<View> read_view(DeviceDecoder::Worker& worker, const RawSample& sample, const AugmentOptions& options,
                              const ViewKey& key, const DecodeLimits& limits, int64_t room);

}  // namespace convolt
