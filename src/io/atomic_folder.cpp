#include "io/atomic_folder.h"

#include <unistd.h>

#include <filesystem>

#include "convolt/error.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

std::string without_slash(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

}  // namespace

AtomicFolder::AtomicFolder(const std::string& path)
    : path_(without_slash(path)), partial_(path_ + ".partial-" + std::to_string(::getpid())) {
  if (path_.empty()) throw UsageError("the name of the output folder is empty");
  std::error_code error;
  if (fs::exists(path_, error) && !(fs::is_directory(path_, error) && fs::is_empty(path_, error)))
    throw UsageError(path_ + ": is not an empty folder; choose another output or remove it");
  fs::create_directories(partial_, error);
  if (error) fail(error);
}

void AtomicFolder::fail(const std::error_code& why) const {
  throw Error(path_ + ": cannot be written (" + why.message() + ")");
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!partial_.empty()) fs::remove_all(partial_, ignored);
}

void AtomicFolder::commit() {
  std::error_code error;
  fs::rename(partial_, path_, error);
  if (error) fail(error);
  partial_.clear();
}

}  // namespace convolt
