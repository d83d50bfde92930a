// NVIDIA's libraries are loaded when they are first needed, so that one program starts on machines without them and can
// say what is missing. Linked in CUDA builds only.
#pragma once

#include <string>
#include <vector>

namespace convolt {

// A shared library that stays loaded until the process ends: cuDNN and cuBLASLt own threads and exit handlers of their
// own, and must not be unloaded under them.
class DynamicLibrary {
public:
  // Tries each soname, newest first, in the folders of CONVOLT_CUDA_LIBRARIES (colon-separated; for the Python
  // packages), then where the system looks, then in CUDA_HOME/lib64 and the project's .deps folder. Throws DeviceError
  // that names the library, the places and the remedy, which is to have it or to use the flag `instead`.
  DynamicLibrary(const std::string& what, const std::vector<std::string>& sonames,
                 const std::string& instead = "--device cpu");

  // For dlsym.
  void* handle() const { return handle_; }
  // The address of a function, as a pointer to `Function`; throws DeviceError when the library has none of that name.
  template <class Function>
  Function* symbol(const char* name) const {
    return reinterpret_cast<Function*>(address(name));
  }

private:
  void* address(const char* name) const;

  std::string what_;
  void* handle_ = nullptr;
};

}  // namespace convolt
