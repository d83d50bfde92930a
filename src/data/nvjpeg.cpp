// JPEGs by nvJPEG's decoupled phases: docs.nvidia.com/cuda/nvjpeg, "Decode using Decoupled Phases".
#include <nvjpeg.h>

#include <array>
#include <type_traits>

#include "convolt/error.h"
#include "data/device_decoder.h"
#include "device/dynamic_library.h"

namespace convolt {
namespace {

// Of one thread: the host reads one while the device makes the other.
constexpr size_t kPicturesInFlight = 2;
// Beyond what a picture needs, so that a slightly larger one allocates nothing.
constexpr size_t kPadding = size_t{1} << 20;
// Chroma is interpolated as libjpeg does it; what does not follow the standard is refused, and left to libjpeg.
constexpr unsigned kFlags = NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION | NVJPEG_FLAGS_BITSTREAM_STRICT;

const char* text_of(nvjpegStatus_t status) {
  switch (status) {
    case NVJPEG_STATUS_NOT_INITIALIZED:
      return "not initialised";
    case NVJPEG_STATUS_INVALID_PARAMETER:
      return "an invalid parameter";
    case NVJPEG_STATUS_BAD_JPEG:
      return "a bad JPEG";
    case NVJPEG_STATUS_JPEG_NOT_SUPPORTED:
      return "a kind of JPEG that is not supported";
    case NVJPEG_STATUS_ALLOCATOR_FAILURE:
      return "no memory";
    case NVJPEG_STATUS_EXECUTION_FAILED:
      return "an error of the device";
    case NVJPEG_STATUS_ARCH_MISMATCH:
      return "a device of another kind";
    case NVJPEG_STATUS_INTERNAL_ERROR:
      return "an internal error";
    case NVJPEG_STATUS_IMPLEMENTATION_NOT_SUPPORTED:
      return "something that this version of nvJPEG does not do";
    case NVJPEG_STATUS_INCOMPLETE_BITSTREAM:
      return "an incomplete JPEG";
    default:
      return "an error that it does not name";
  }
}

void check(nvjpegStatus_t status, const char* what) {
  if (status == NVJPEG_STATUS_SUCCESS) return;
  const std::string message = std::string("nvJPEG failed at ") + what + " (" + text_of(status) + ")";
  if (status == NVJPEG_STATUS_ALLOCATOR_FAILURE) throw OutOfMemoryError(message + ": try fewer threads (-j)");
  throw DeviceError(message + ": --decoder cpu does without it");
}

// The functions that are used, looked up once.
struct Api {
  DynamicLibrary library{"nvJPEG (of the CUDA toolkit, or the Python package nvidia-nvjpeg)",
                         {"libnvjpeg.so." + std::to_string(NVJPEG_VER_MAJOR)},
                         "--decoder cpu"};
  template <class Function>
  Function* find(const char* name) const {
    return library.symbol<Function>(name);
  }
  decltype(nvjpegCreateEx)* create = find<decltype(nvjpegCreateEx)>("nvjpegCreateEx");
  decltype(nvjpegDestroy)* destroy = find<decltype(nvjpegDestroy)>("nvjpegDestroy");
  decltype(nvjpegSetDeviceMemoryPadding)* pad_device =
      find<decltype(nvjpegSetDeviceMemoryPadding)>("nvjpegSetDeviceMemoryPadding");
  decltype(nvjpegSetPinnedMemoryPadding)* pad_pinned =
      find<decltype(nvjpegSetPinnedMemoryPadding)>("nvjpegSetPinnedMemoryPadding");
  decltype(nvjpegDecoderCreate)* create_decoder = find<decltype(nvjpegDecoderCreate)>("nvjpegDecoderCreate");
  decltype(nvjpegDecoderDestroy)* destroy_decoder = find<decltype(nvjpegDecoderDestroy)>("nvjpegDecoderDestroy");
  decltype(nvjpegDecoderStateCreate)* create_state =
      find<decltype(nvjpegDecoderStateCreate)>("nvjpegDecoderStateCreate");
  decltype(nvjpegJpegStateDestroy)* destroy_state = find<decltype(nvjpegJpegStateDestroy)>("nvjpegJpegStateDestroy");
  decltype(nvjpegJpegStreamCreate)* create_stream = find<decltype(nvjpegJpegStreamCreate)>("nvjpegJpegStreamCreate");
  decltype(nvjpegJpegStreamDestroy)* destroy_stream =
      find<decltype(nvjpegJpegStreamDestroy)>("nvjpegJpegStreamDestroy");
  decltype(nvjpegBufferPinnedCreate)* create_pinned =
      find<decltype(nvjpegBufferPinnedCreate)>("nvjpegBufferPinnedCreate");
  decltype(nvjpegBufferPinnedDestroy)* destroy_pinned =
      find<decltype(nvjpegBufferPinnedDestroy)>("nvjpegBufferPinnedDestroy");
  decltype(nvjpegBufferDeviceCreate)* create_buffer =
      find<decltype(nvjpegBufferDeviceCreate)>("nvjpegBufferDeviceCreate");
  decltype(nvjpegBufferDeviceDestroy)* destroy_buffer =
      find<decltype(nvjpegBufferDeviceDestroy)>("nvjpegBufferDeviceDestroy");
  decltype(nvjpegStateAttachPinnedBuffer)* attach_pinned =
      find<decltype(nvjpegStateAttachPinnedBuffer)>("nvjpegStateAttachPinnedBuffer");
  decltype(nvjpegStateAttachDeviceBuffer)* attach_buffer =
      find<decltype(nvjpegStateAttachDeviceBuffer)>("nvjpegStateAttachDeviceBuffer");
  decltype(nvjpegDecodeParamsCreate)* create_params =
      find<decltype(nvjpegDecodeParamsCreate)>("nvjpegDecodeParamsCreate");
  decltype(nvjpegDecodeParamsDestroy)* destroy_params =
      find<decltype(nvjpegDecodeParamsDestroy)>("nvjpegDecodeParamsDestroy");
  decltype(nvjpegDecodeParamsSetOutputFormat)* set_format =
      find<decltype(nvjpegDecodeParamsSetOutputFormat)>("nvjpegDecodeParamsSetOutputFormat");
  decltype(nvjpegDecodeParamsSetROI)* set_region = find<decltype(nvjpegDecodeParamsSetROI)>("nvjpegDecodeParamsSetROI");
  decltype(nvjpegJpegStreamParse)* parse = find<decltype(nvjpegJpegStreamParse)>("nvjpegJpegStreamParse");
  decltype(nvjpegDecodeJpegHost)* decode_on_host = find<decltype(nvjpegDecodeJpegHost)>("nvjpegDecodeJpegHost");
  decltype(nvjpegDecodeJpegTransferToDevice)* transfer =
      find<decltype(nvjpegDecodeJpegTransferToDevice)>("nvjpegDecodeJpegTransferToDevice");
  decltype(nvjpegDecodeJpegDevice)* decode_on_device = find<decltype(nvjpegDecodeJpegDevice)>("nvjpegDecodeJpegDevice");
};

// One of nvJPEG's objects.
template <class Handle>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, nvjpegStatus_t (*)(Handle)>;
// What create(arguments..., &handle) makes.
template <class Handle, class Create, class... Arguments>
Owned<Handle> make(const char* what, nvjpegStatus_t (*destroy)(Handle), Create* create, Arguments... arguments) {
  Handle handle = nullptr;
  check(create(arguments..., &handle), what);
  return Owned<Handle>(handle, destroy);
}

// The loaded library, its handle and its decoder: of all threads.
struct Library {
  Api api;
  Owned<nvjpegHandle_t> handle;
  Owned<nvjpegJpegDecoder_t> decoder;

  explicit Library(const Api& a)
      : api(a),
        handle(make("its start", api.destroy, api.create, NVJPEG_BACKEND_HYBRID, nullptr, nullptr, kFlags)),
        decoder(make("its start", api.destroy_decoder, api.create_decoder, handle.get(), NVJPEG_BACKEND_HYBRID)) {
    check(api.pad_device(kPadding, handle.get()), "its start");
    check(api.pad_pinned(kPadding, handle.get()), "its start");
  }
};

// All that the library keeps of a picture from its first byte to its last pixel. It is shared with nothing, so that
// nothing but the end of its work in the queue must be waited for.
struct Picture {
  explicit Picture(const Library& l)
      : stream(make("a stream", l.api.destroy_stream, l.api.create_stream, l.handle.get())),
        pinned(make("a buffer", l.api.destroy_pinned, l.api.create_pinned, l.handle.get(), nullptr)),
        buffer(make("a buffer", l.api.destroy_buffer, l.api.create_buffer, l.handle.get(), nullptr)),
        params(make("its parameters", l.api.destroy_params, l.api.create_params, l.handle.get())),
        state(make("a state", l.api.destroy_state, l.api.create_state, l.handle.get(), l.decoder.get())) {
    check(l.api.attach_pinned(state.get(), pinned.get()), "a buffer");
    check(l.api.attach_buffer(state.get(), buffer.get()), "a buffer");
    check(l.api.set_format(params.get(), NVJPEG_OUTPUT_RGBI), "its parameters");
  }

  Owned<nvjpegJpegStream_t> stream;
  Owned<nvjpegBufferPinned_t> pinned;
  Owned<nvjpegBufferDevice_t> buffer;
  Owned<nvjpegDecodeParams_t> params;
  Owned<nvjpegJpegState_t> state;
  int width = 0;
  Event written;  // the end of its work in the queue
};

// Memory is allocated on the device that is the thread's current one.
void use_device_of(const Context& context) {
  if (cudaSetDevice(context.device().index) != cudaSuccess) throw DeviceError("selecting the CUDA device failed");
}

class NvjpegWorker final : public DeviceDecoder::Worker {
public:
  NvjpegWorker(Context& context, const Library& library)
      : context_(context), library_(library), pictures_{Picture(library), Picture(library)} {}

  bool read(std::span<const uint8_t> file, const Region& region) override {
    use_device_of(context_);
    const Api& api = library_.api;
    Picture& p = pictures_[next_];
    p.written.wait();
    p.width = region.width;
    check(api.set_region(p.params.get(), region.left, region.top, region.width, region.height), "a region");
    // With a copy of the file, which the caller may drop before write().
    nvjpegStatus_t status = api.parse(library_.handle.get(), file.data(), file.size(), /*save_metadata=*/0,
                                      /*save_stream=*/1, p.stream.get());
    if (status == NVJPEG_STATUS_SUCCESS)
      status = api.decode_on_host(library_.handle.get(), library_.decoder.get(), p.state.get(), p.params.get(),
                                  p.stream.get());
    // Anything else is about this file.
    if (status == NVJPEG_STATUS_ALLOCATOR_FAILURE || status == NVJPEG_STATUS_EXECUTION_FAILED)
      check(status, "a picture");
    return status == NVJPEG_STATUS_SUCCESS;
  }

  void write(uint8_t* rgb) override {
    Picture& p = pictures_[next_];
    next_ = (next_ + 1) % kPicturesInFlight;
    nvjpegStatus_t status = NVJPEG_STATUS_SUCCESS;
    context_.copies().run([&](Stream s) { status = queue(p, rgb, static_cast<cudaStream_t>(s.handle)); });
    p.written = context_.copies().record();
    check(status, "the pixels of a picture");
  }

private:
  // On a CUDA queue this runs before run() returns.
  nvjpegStatus_t queue(const Picture& p, uint8_t* rgb, cudaStream_t stream) const {
    const Api& api = library_.api;
    nvjpegImage_t image{};
    image.channel[0] = rgb;
    image.pitch[0] = static_cast<size_t>(p.width) * 3;
    const nvjpegStatus_t status =
        api.transfer(library_.handle.get(), library_.decoder.get(), p.state.get(), p.stream.get(), stream);
    if (status != NVJPEG_STATUS_SUCCESS) return status;
    return api.decode_on_device(library_.handle.get(), library_.decoder.get(), p.state.get(), &image, stream);
  }

  Context& context_;
  const Library& library_;
  std::array<Picture, kPicturesInFlight> pictures_;
  size_t next_ = 0;  // the one to read, or that is read
};

class NvjpegDecoder final : public DeviceDecoder {
public:
  NvjpegDecoder(Context& context, const Api& api) : context_(context), library_(api) {}
  std::unique_ptr<Worker> make_worker() override {
    use_device_of(context_);
    return std::make_unique<NvjpegWorker>(context_, library_);
  }

private:
  Context& context_;
  const Library library_;
};

}  // namespace

std::unique_ptr<DeviceDecoder> make_nvjpeg_decoder(Context& context) {
  const Api api;
  use_device_of(context);
  return std::make_unique<NvjpegDecoder>(context, api);
}

}  // namespace convolt
