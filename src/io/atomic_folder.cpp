#include "io/atomic_folder.h"

#include <unistd.h>

#include <filesystem>
#include <vector>

#include "convolt/error.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

std::string without_slash(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

}  // namespace

AtomicFolder::AtomicFolder(const std::string& path) : path_(without_slash(path)) {
  if (path_.empty()) throw UsageError("the name of the output folder is empty");
  std::error_code error;
  exists_ = fs::exists(path_, error);
  if (exists_ && !(fs::is_directory(path_, error) && fs::is_empty(path_, error)))
    throw UsageError(path_ + ": is not an empty folder; choose another output or remove it");
  const fs::path parent = fs::path(path_).parent_path();
  if (!exists_ && !parent.empty()) fs::create_directories(parent, error);
  if (error) fail(error);
  const std::string name = (exists_ ? path_ + "/" : path_) + ".partial-" + std::to_string(::getpid()) + "-";
  for (int i = 0; partial_.empty(); ++i) {
    if (fs::create_directory(name + std::to_string(i), error)) partial_ = name + std::to_string(i);
    if (error) fail(error);
  }
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!partial_.empty()) fs::remove_all(partial_, ignored);
}

void AtomicFolder::commit() {
  std::error_code error;
  if (exists_) {
    std::vector<fs::path> made;
    for (const fs::directory_entry& entry : fs::directory_iterator(partial_, error)) made.push_back(entry.path());
    for (const fs::path& from : made) {
      fs::rename(from, fs::path(path_) / from.filename(), error);
      if (error) fail(error);
    }
    fs::remove(partial_, error);
  } else {
    fs::rename(partial_, path_, error);
  }
  if (error) fail(error);
  partial_.clear();
}

void AtomicFolder::fail(const std::error_code& why) const {
  throw Error(path_ + ": cannot be written (" + why.message() + ")");
}

}  // namespace convolt
