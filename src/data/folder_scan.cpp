#include "data/folder_scan.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <thread>

#include "convolt/error.h"
#include "data/packed_format.h"
#include "data/parallel_for.h"
#include "data/picture_header.h"
#include "data/sources.h"
#include "io/cache_folder.h"
#include "io/descriptor.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

struct State {
  int64_t changed = kUnsettled, bytes = -1;  // nothing where it cannot be asked
};

// Of what `path` below an open folder leads to.
State state_of(int folder, const char* path) {
  struct stat status {};
  if (::fstatat(folder, path, &status, 0) != 0) return {};
  return {int64_t{status.st_ctim.tv_sec} * 1'000'000'000 + status.st_ctim.tv_nsec, status.st_size};
}

bool is_as_before(const IndexedFile& file, const State& state) {
  return file.changed != kUnsettled && file.changed == state.changed && file.bytes == state.bytes;
}

// What one class folder holds.
struct ClassListing {
  struct Folder {
    std::string below;  // the root
    int64_t changed;
  };
  std::vector<Folder> folders;
  std::vector<std::string> files;  // below the class folder
};

// Adds what lies in `folder` itself, and returns the names of the folders there.
std::vector<std::string> list_one(const fs::path& folder, const std::string& prefix, ClassListing& listing) {
  std::vector<std::string> deeper;
  ClassListing::Folder& self = listing.folders.back();
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string& path = entry.path().native();
    std::string name = path.substr(path.rfind('/') + 1);
    if (name.starts_with('.')) continue;
    if (entry.is_regular_file())
      listing.files.push_back(prefix + name);
    else if (entry.is_symlink())
      self.changed = kUnsettled;  // what it leads to may become a file, which changes nothing here
    else if (entry.is_directory())
      deeper.push_back(std::move(name));
  }
  return deeper;
}

ClassListing list_class(const fs::path& root, const std::string& name) {
  ClassListing listing;
  std::vector<std::string> waiting{""};  // below the class folder, each with '/' at its end
  fs::path folder;
  try {
    while (!waiting.empty()) {
      const std::string prefix = std::move(waiting.back());
      waiting.pop_back();
      const std::string below = prefix.empty() ? name : name + "/" + prefix.substr(0, prefix.size() - 1);
      folder = root / below;
      // Its time is asked first: what is added while it is listed counts as a change.
      listing.folders.push_back({below, state_of(AT_FDCWD, folder.c_str()).changed});
      for (const std::string& deeper : list_one(folder, prefix, listing)) waiting.push_back(prefix + deeper + "/");
    }
  } catch (const fs::filesystem_error& error) {
    throw DataError(folder.string() + ": cannot be listed (" + error.code().message() + ")");
  }
  std::sort(listing.files.begin(), listing.files.end());
  return listing;
}

template <class T>
void add_name(const std::string& name, T& to, std::string& text) {
  to.name = text.size();
  to.name_bytes = static_cast<uint32_t>(name.size());
  text.append(name.c_str(), name.size() + 1);
}

void append(const ClassListing& listing, int32_t label, FolderIndex::Parts& parts) {
  for (const ClassListing::Folder& folder : listing.folders) {
    parts.folders.push_back({.changed = folder.changed});
    add_name(folder.below, parts.folders.back(), parts.text);
  }
  for (const std::string& name : listing.files) {
    parts.files.push_back({.label = label});
    add_name(name, parts.files.back(), parts.text);
  }
}

// Calls body(i, descriptor of the folder of its class) for each file, on several threads.
template <class Body>
void for_each_file(const fs::path& root, const FolderIndex& index, int threads, const Body& body) {
  constexpr int64_t kTogether = 256;
  const std::vector<std::string_view> classes = index.classes();
  const auto count = static_cast<int64_t>(index.files().size());
  parallel_for((count + kTogether - 1) / kTogether, threads,
               [&](int64_t group) {
                 Descriptor folder;
                 int32_t label = -1;
                 for (int64_t i = group * kTogether; i < std::min(count, (group + 1) * kTogether); ++i) {
                   const IndexedFile& file = index.files()[static_cast<size_t>(i)];
                   if (file.label != label) {
                     label = file.label;
                     folder = Descriptor(root / classes[static_cast<size_t>(label)], O_PATH | O_DIRECTORY);
                   }
                   body(static_cast<size_t>(i), folder.get());
                 }
               },
               1);
}

bool is_current(const FolderIndex& index, const fs::path& root, const std::vector<std::string>& classes, int threads) {
  if (!std::ranges::equal(index.classes(), classes)) return false;
  for (const IndexedFolder& folder : index.folders())
    if (folder.changed == kUnsettled ||
        folder.changed != state_of(AT_FDCWD, (root / index.name(folder)).c_str()).changed)
      return false;
  std::atomic<bool> same{true};
  for_each_file(root, index, threads, [&](size_t i, int folder) {
    const IndexedFile& file = index.files()[i];
    if (same && !is_as_before(file, state_of(folder, index.name(file).data()))) same = false;
  });
  return same;
}

// The height and width that the header says, 0 x 0 where there is no good one. False when the file cannot be read,
// which may be otherwise the next time.
bool read_extent(const fs::path& path, IndexedFile& file) {
  bool readable = false;
  file.height = file.width = 0;
  try {
    const InputFile input(path);
    input.bytes();
    readable = true;
    check_picture_bytes(path.string(), file.bytes);
    PictureBytes bytes([&](int64_t offset, std::span<uint8_t> into) {
      readable = false;
      const size_t got = input.read(offset, into);
      readable = true;
      return got;
    });
    const PictureHeader header = read_picture_header(bytes);
    file.height = header.height;
    file.width = header.width;
  } catch (const DataError&) {
  }
  return readable;
}

// What an earlier index says of a file.
class Known {
public:
  explicit Known(const FolderIndex* index) : index_(index) {
    if (index != nullptr) classes_ = index->classes();
  }
  const IndexedFile* find(std::string_view name_of_class, std::string_view below) const {
    if (index_ == nullptr) return nullptr;
    const auto key = [&](const IndexedFile& file) {
      return std::pair(classes_[static_cast<size_t>(file.label)], index_->name(file));
    };
    const std::pair wanted(name_of_class, below);
    const auto found = std::ranges::lower_bound(index_->files(), wanted, {}, key);
    return found != index_->files().end() && key(*found) == wanted ? &*found : nullptr;
  }

private:
  const FolderIndex* index_;
  std::vector<std::string_view> classes_;
};

class Counter {
public:
  Counter(const IndexOptions& options, size_t total) : options_(options), total_(static_cast<int64_t>(total)) {}
  void next() {
    const int64_t done = ++done_;
    constexpr int64_t kEach = 256;
    if (!options_.progress || done % kEach != 0) return;
    const std::lock_guard lock(mutex_);
    options_.progress(done, total_);
  }

private:
  const IndexOptions& options_;
  const int64_t total_;
  std::atomic<int64_t> done_{0};
  std::mutex mutex_;
};

// Length, time and extent of each file of a walk.
std::vector<IndexedFile> measured(const FolderIndex& walk, const FolderIndex* before, const fs::path& root,
                                  const IndexOptions& options, int threads, int64_t settled_before) {
  const Known known(before);
  const std::vector<std::string_view> classes = walk.classes();
  std::vector<IndexedFile> files(walk.files().begin(), walk.files().end());
  Counter counter(options, files.size());
  for_each_file(root, walk, threads, [&](size_t i, int folder) {
    IndexedFile& file = files[i];
    const std::string_view name = walk.name(file), name_of_class = classes[static_cast<size_t>(file.label)];
    const State state = state_of(folder, name.data());
    file.bytes = std::max<int64_t>(state.bytes, 0);
    const IndexedFile* old = known.find(name_of_class, name);
    bool reliable = true;
    if (old != nullptr && is_as_before(*old, state)) {
      file.height = old->height;
      file.width = old->width;
    } else {
      reliable = read_extent(root / name_of_class / name, file);
    }
    file.changed = reliable && state.changed < settled_before ? state.changed : kUnsettled;
    counter.next();
  });
  return files;
}

std::optional<FolderIndex> read_index(const fs::path& path) {
  if (path.empty()) return std::nullopt;
  try {
    return FolderIndex::read(path);
  } catch (const DataError&) {  // none, or not a good one: a new one takes its place
    return std::nullopt;
  }
}

// What cannot be kept is not worth making.
bool can_write(const fs::path& index) {
  std::error_code error;
  if (index.empty()) return false;
  fs::create_directories(index.parent_path(), error);
  return ::access(index.parent_path().c_str(), W_OK | X_OK) == 0;
}

}  // namespace

FolderIndex::Parts walk_folder(const fs::path& root, const std::vector<std::string>& classes, int threads) {
  std::vector<ClassListing> found(classes.size());
  parallel_for(
      static_cast<int64_t>(classes.size()), threads,
      [&](int64_t c) { found[static_cast<size_t>(c)] = list_class(root, classes[static_cast<size_t>(c)]); }, 1);
  FolderIndex::Parts parts;
  for (size_t c = 0; c < classes.size(); ++c) {
    append(found[c], static_cast<int32_t>(c), parts);
    found[c] = {};
  }
  return parts;
}

fs::path index_path(const fs::path& root) {
  std::error_code error;
  const std::string real = fs::canonical(root, error).string();
  const fs::path cache = cache_folder();
  if (error || cache.empty()) return {};
  const std::span bytes(reinterpret_cast<const uint8_t*>(real.data()), real.size());
  return cache / "index" / fmt::format("{:016x}.idx", packed_hash(bytes));
}

FolderIndex scan_folder(const fs::path& root, const std::vector<std::string>& classes, const fs::path& index,
                        const IndexOptions& options, int64_t now) {
  constexpr int64_t kSettling = 2'000'000'000;  // the coarsest times are those of FAT
  const int threads =
      options.threads > 0 ? options.threads : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  const std::optional<FolderIndex> before = read_index(index);
  if (before && is_current(*before, root, classes, threads)) return *before;
  FolderIndex::Parts parts = walk_folder(root, classes, threads);
  for (IndexedFolder& folder : parts.folders)
    if (folder.changed >= now - kSettling) folder.changed = kUnsettled;
  const FolderIndex walk(std::move(parts));
  if (!can_write(index)) return walk;
  const FolderIndex fresh =
      walk.with(measured(walk, before ? &*before : nullptr, root, options, threads, now - kSettling));
  try {
    fresh.write(index);
  } catch (const Error&) {  // the next start does it again
  }
  return fresh;
}

}  // namespace convolt
