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

PredictorOptions predictor_options(const convolt_options& o) {
  PredictorOptions p;
  if (o.dtype != nullptr) p.dtype = dtype_from_name(o.dtype);
  if (o.batch != 0) p.batch = o.batch;
  if (o.workers != 0) p.workers = o.workers;
  return p;
}

RawSample sample_of(const convolt_picture& picture) {
  require(picture.bytes != nullptr || picture.size == 0, "the memory of a picture");
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
      std::ranges::transform(prediction.probabilities(), row, [](double x) { return static_cast<float>(x); });
      if (!std::isnan(row[0])) return;
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
  RawSample read(int64_t i) const override { return sample_of(pictures_[static_cast<size_t>(i)]); }
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
    *predictor = new convolt_predictor{std::move(context), {device, checkpoint, predictor_options(o)}};
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
