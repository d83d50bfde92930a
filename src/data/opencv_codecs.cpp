#include "data/opencv_codecs.h"

#include <dlfcn.h>

#include <opencv2/imgcodecs.hpp>

#include "convolt/error.h"

namespace convolt {
namespace {

using Imdecode = cv::Mat(cv::InputArray, int);
using Imencode = bool(const std::string&, cv::InputArray, std::vector<uint8_t>&, const std::vector<int>&);

#ifdef CONVOLT_IMGCODECS  // the soname; not defined where OpenCV is linked statically

// What dlopen or dlsym found.
void* required(void* found) {
  if (found != nullptr) return found;
  const char* reason = dlerror();
  throw Error(std::string("OpenCV's coders cannot be loaded (") + (reason == nullptr ? "no reason given" : reason) +
              "); install its imgcodecs library as " CONVOLT_IMGCODECS);
}

// Stays loaded: libraries that it brings have exit handlers.
void* library() {
  static void* const loaded = required(dlopen(CONVOLT_IMGCODECS, RTLD_NOW | RTLD_LOCAL));
  return loaded;
}

template <class Function>
Function* function(const char* symbol) {
  return reinterpret_cast<Function*>(required(dlsym(library(), symbol)));
}

// By their names in the Itanium C++ ABI, which are part of that soname.
Imdecode* imdecode() {
  static const auto found = function<Imdecode>("_ZN2cv8imdecodeERKNS_11_InputArrayEi");
  return found;
}
Imencode* imencode() {
  static const auto found = function<Imencode>(
      "_ZN2cv8imencodeERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEERKNS_11_InputArrayERSt6vectorIhSaIhEE"
      "RKSB_IiSaIiEE");
  return found;
}

#else

Imdecode* imdecode() { return cv::imdecode; }
Imencode* imencode() { return cv::imencode; }

#endif

// OpenCV makes its table of codecs at the first call, behind a guard that ThreadSanitizer does not see, since the
// library is not instrumented: one of ours stands around it, so that it knows who comes after.
void make_codecs() {
  [[maybe_unused]] static const bool made = [] {
    uint8_t no_picture = 0;
    imdecode()(cv::Mat(1, 1, CV_8U, &no_picture), cv::IMREAD_COLOR);  // gives an empty Mat
    return true;
  }();
}

}  // namespace

cv::Mat opencv_imdecode(const cv::Mat& bytes, int flags) {
  make_codecs();
  return imdecode()(bytes, flags);
}

std::vector<uint8_t> opencv_imencode(const std::string& extension, const cv::Mat& picture,
                                     const std::vector<int>& parameters) {
  make_codecs();
  std::vector<uint8_t> bytes;
  if (!imencode()(extension, picture, bytes, parameters))
    throw Error("OpenCV cannot write " + extension + " pictures; install one that has the codec");
  return bytes;
}

}  // namespace convolt
