#include "io/atomic_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <vector>

#include "convolt/error.h"
#include "io/leftovers.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

std::string without_slash(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

// Whether its writer still has it, which may be a process of another machine or container.
bool is_held(const fs::path& folder) {
  const Descriptor there(folder.string(), O_RDONLY | O_DIRECTORY);
  return there.valid() && !there.lock();
}

// Whether the folder has nothing in it, but for what killed processes left, which goes.
bool emptied(const std::string& path) {
  const std::vector<fs::path> left = leftovers_in(path, R"(\.partial-(\d+)-\d+)");
  std::error_code error;
  if (std::distance(fs::directory_iterator(path, error), {}) != static_cast<std::ptrdiff_t>(left.size())) return false;
  if (std::ranges::any_of(left, is_held)) return false;
  for (const fs::path& folder : left) fs::remove_all(folder, error);
  return fs::is_empty(path, error);
}

}  // namespace

AtomicFolder::AtomicFolder(const std::string& path) : path_(without_slash(path)) {
  if (path_.empty()) throw UsageError("the name of the output folder is empty");
  std::error_code error;
  exists_ = fs::exists(path_, error);
  if (exists_ && !(fs::is_directory(path_, error) && emptied(path_)))
    throw UsageError(path_ + ": is not an empty folder; choose another output or remove it");
  const fs::path parent = fs::path(path_).parent_path();
  if (!exists_ && !parent.empty()) fs::create_directories(parent, error);
  if (error) fail(error);
  const std::string name = (exists_ ? path_ + "/" : path_) + ".partial-" + std::to_string(::getpid()) + "-";
  for (int i = 0; partial_.empty(); ++i) {
    if (fs::create_directory(name + std::to_string(i), error)) partial_ = name + std::to_string(i);
    if (error) fail(error);
  }
  lock_ = Descriptor(partial_, O_RDONLY | O_DIRECTORY);
  lock_.lock();
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

void check_interrupt(const std::atomic<int>* interrupt, const std::string& path) {
  if (interrupt != nullptr && *interrupt != 0) throw Error(path + ": interrupted, and nothing of it is kept");
}

void AtomicFolder::fail(const std::error_code& why) const {
  throw Error(path_ + ": cannot be written (" + why.message() + ")");
}

}  // namespace convolt
