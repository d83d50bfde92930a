#include "device/dynamic_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <sstream>

#include "convolt/error.h"

namespace convolt {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

// Folders in the order they are tried; the empty one is the system's own search.
std::vector<std::string> folders() {
  std::vector<std::string> result;
  std::istringstream listed(environment("CONVOLT_CUDA_LIBRARIES"));
  for (std::string folder; std::getline(listed, folder, ':');)
    if (!folder.empty()) result.push_back(folder + "/");
  result.emplace_back();
  if (const std::string home = environment("CUDA_HOME"); !home.empty()) result.push_back(home + "/lib64/");
  result.emplace_back("/usr/local/cuda/lib64/");
  for (const char* fetched : {"cuda/nvidia/cu13", "cuda/nvidia/cudnn", "nvjpeg/cu13"})
    result.push_back(std::string(CONVOLT_DEPS "/") + fetched + "/lib/");
  return result;
}

}  // namespace

DynamicLibrary::DynamicLibrary(const std::string& what, const std::vector<std::string>& sonames,
                               const std::string& instead)
    : what_(what) {
  std::string first_error;
  for (const std::string& folder : folders())
    for (const std::string& soname : sonames) {
      handle_ = dlopen((folder + soname).c_str(), RTLD_NOW | RTLD_LOCAL);
      if (handle_ != nullptr) return;
      const char* error = dlerror();
      if (first_error.empty() && error != nullptr) first_error = error;
    }
  throw DeviceError(what + " was not found (" + first_error +
                    "): install it, or name its folder in CONVOLT_CUDA_LIBRARIES, or use " + instead);
}

void* DynamicLibrary::address(const char* name) const {
  void* found = dlsym(handle_, name);
  if (found == nullptr) throw DeviceError(what_ + " lacks the function " + name + ": it is too old for this program");
  return found;
}

}  // namespace convolt
