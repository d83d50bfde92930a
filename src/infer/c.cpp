#include "convolt/c.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "convolt/error.h"
#include "convolt/predictor.h"

struct convolt_predictor {
  std::unique_ptr<convolt::Context> context;
  convolt::Predictor predictor;
  bool logits;
};

namespace convolt {
namespace {

// An array, so that noting an error cannot fail.
thread_local char last_error[1024] = "";

convolt_status fail(convolt_status status, const char* message) noexcept {
  std::snprintf(last_error, sizeof last_error, "%s", message);
  return status;
}

template <class F>
convolt_status guarded(F body) noexcept {
  try {
    return body();
  } catch (const std::exception& error) {
    return fail(static_cast<convolt_status>(exit_code_of(error)), error.what());
  } catch (...) {
    return fail(CONVOLT_FAILURE, "something that is no exception was thrown");
  }
}

void require(bool given, const char* what) {
  if (!given) throw UsageError(std::string(what) + " is NULL");
}

void require_count(size_t count) {
  if (count > static_cast<size_t>(std::numeric_limits<int32_t>::max()))
    throw UsageError("a call takes at most 2^31 - 1 pictures, found " + std::to_string(count));
}

Context::Options context_options(const convolt_options& o) {
  return {o.device != nullptr ? Device::parse(o.device) : Device::best(), o.threads};
}

DType activations_of(const std::string& name) {
  for (const DType t : {DType::f32, DType::bf16, DType::f16})
    if (name == name_of(t)) return t;
  throw UsageError("'" + name + "' is no type of activations: expected f32, bf16 or f16");
}

PredictorOptions predictor_options(const convolt_options& o) {
  PredictorOptions p;
  if (o.dtype != nullptr) p.dtype = activations_of(o.dtype);
  if (o.batch != 0) p.batch = o.batch;
  if (o.workers != 0) p.workers = o.workers;
  if (o.views != 0) p.views = o.views;
  return p;
}

// Raw pixels with rows apart, in another order or with a fourth channel, as others hold them, to packed RGB or grey.
RawSample packed(const convolt_picture& p, const std::string& name) {
  const auto height = static_cast<size_t>(p.height), width = static_cast<size_t>(p.width),
             channels = static_cast<size_t>(p.channels), row = width * channels,
             stride = p.stride == 0 ? row : p.stride;
  if (p.width < 1 || (channels != 1 && channels != 3 && channels != 4) ||
      (p.order != CONVOLT_RGB && p.order != CONVOLT_BGR))
    throw DataError(name + ": expected raw pixels of 1, 3 or 4 channels, RGB or BGR, in rows of at least 1; found " +
                    std::to_string(p.channels) + " channels, order " + std::to_string(p.order) + ", width " +
                    std::to_string(p.width));
  if (stride < row || p.size < row || (p.size - row) / stride < height - 1)
    throw DataError(name + ": " + std::to_string(p.height) + " rows of " + std::to_string(row) + " bytes, " +
                    std::to_string(stride) + " apart, do not fit in " + std::to_string(p.size) + " bytes");
  const size_t made = channels == 1 ? 1 : 3, red = p.order == CONVOLT_BGR ? 2 : 0;
  RawSample sample{std::vector<uint8_t>(height * width * made), p.height, p.width, static_cast<int>(made)};
  uint8_t* to = sample.bytes.data();
  for (size_t y = 0; y < height; ++y) {
    const uint8_t* from = static_cast<const uint8_t*>(p.bytes) + y * stride;
    for (size_t x = 0; x < width; ++x, from += channels, to += made) {
      to[0] = from[made == 1 ? 0 : red];
      if (made == 1) continue;
      to[1] = from[1];
      to[2] = from[2 - red];
    }
  }
  return sample;
}

RawSample sample_of(const convolt_picture& picture, const std::string& name) {
  require(picture.bytes != nullptr || picture.size == 0, "the memory of a picture");
  const bool plain =
      picture.stride == 0 && picture.order == CONVOLT_RGB && (picture.channels == 1 || picture.channels == 3);
  if (picture.height > 0 && !plain) return packed(picture, name);
  const auto* bytes = static_cast<const uint8_t*>(picture.bytes);
  return {{bytes, bytes + picture.size}, picture.height, picture.width, picture.channels};
}

convolt_status predict(convolt_predictor& p, const Dataset& pictures, float* probabilities) {
  convolt_status status = CONVOLT_OK;
  const int64_t classes = p.predictor.card().classes;
  p.predictor.predict(pictures, [&](int64_t i, const Prediction& prediction) {
    float* row = probabilities + i * classes;
    std::string error = prediction.error;
    if (error.empty()) {
      if (p.logits)
        std::ranges::copy(prediction.logits, row);
      else
        std::ranges::transform(prediction.probabilities(), row, [](double x) { return static_cast<float>(x); });
      if (std::all_of(row, row + classes, [](float x) { return std::isfinite(x); })) return;
      error = "the outputs of the network are not finite";
    }
    std::fill_n(row, classes, std::nanf(""));
    if (status == CONVOLT_OK) status = fail(CONVOLT_DATA, (pictures.name(i) + ": " + error).c_str());
  });
  return status;
}

// The caller's pictures, copied as they are read.
class CallersPictures final : public Dataset {
public:
  explicit CallersPictures(std::span<const convolt_picture> pictures) : pictures_(pictures) {}
  int64_t size() const override { return static_cast<int64_t>(pictures_.size()); }
  RawSample read(int64_t i) const override { return sample_of(pictures_[static_cast<size_t>(i)], name(i)); }
  std::string name(int64_t i) const override { return "picture " + std::to_string(i); }

private:
  std::span<const convolt_picture> pictures_;
};

}  // namespace
}  // namespace convolt

using namespace convolt;

const char* convolt_version(void) { return CONVOLT_VERSION; }

convolt_status convolt_open(const char* checkpoint, const convolt_options* options, convolt_predictor** predictor) {
  return guarded([&] {
    require(predictor != nullptr, "the place of the predictor");
    *predictor = nullptr;
    require(checkpoint != nullptr, "the path of the checkpoint");
    const convolt_options o = options != nullptr ? *options : convolt_options{};
    auto context = Context::create(context_options(o));
    Context& device = *context;
    *predictor = new convolt_predictor{std::move(context), {device, checkpoint, predictor_options(o)}, o.logits != 0};
    return CONVOLT_OK;
  });
}

void convolt_close(convolt_predictor* predictor) { delete predictor; }

size_t convolt_class_count(const convolt_predictor* predictor) {
  return predictor != nullptr ? static_cast<size_t>(predictor->predictor.card().classes) : 0;
}

const char* convolt_class_name(const convolt_predictor* predictor, size_t class_index) {
  if (predictor == nullptr) return nullptr;
  const std::vector<std::string>& names = predictor->predictor.card().class_names;
  return class_index < names.size() ? names[class_index].c_str() : nullptr;
}

convolt_status convolt_input_size(const convolt_predictor* predictor, int* height, int* width, int* channels) {
  return guarded([&] {
    require(predictor != nullptr, "the predictor");
    const AugmentOptions& input = predictor->predictor.card().preprocessing;
    if (height != nullptr) *height = input.height;
    if (width != nullptr) *width = input.width;
    if (channels != nullptr) *channels = input.channels;
    return CONVOLT_OK;
  });
}

convolt_status convolt_predict(convolt_predictor* predictor, const convolt_picture* pictures, size_t count,
                               float* probabilities) {
  return guarded([&] {
    require(predictor != nullptr, "the predictor");
    require(count == 0 || (pictures != nullptr && probabilities != nullptr), "the pictures or the probabilities");
    require_count(count);
    return predict(*predictor, CallersPictures({pictures, count}), probabilities);
  });
}

convolt_status convolt_predict_files(convolt_predictor* predictor, const char* const* paths, size_t count,
                                     float* probabilities) {
  return guarded([&] {
    require(predictor != nullptr, "the predictor");
    require(count == 0 || (paths != nullptr && probabilities != nullptr), "the paths or the probabilities");
    require_count(count);
    std::vector<std::string> files;
    for (size_t i = 0; i < count; ++i) {
      require(paths[i] != nullptr, "a path");
      files.emplace_back(paths[i]);
    }
    return predict(*predictor, *picture_files(std::move(files)), probabilities);
  });
}

const char* convolt_last_error(void) { return last_error; }
