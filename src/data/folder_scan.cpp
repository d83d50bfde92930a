#include "data/folder_scan.h"

#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <optional>
#include <set>

#include "convolt/error.h"
#include "data/index_cache.h"
#include "data/measure.h"
#include "data/parallel_for.h"
#include "data/sources.h"
#include "io/descriptor.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

// What one class folder holds.
struct ClassListing {
  struct Folder {
    std::string below;  // the root
    int64_t changed;
  };
  std::vector<Folder> folders;
  std::vector<std::string> files;  // below the class folder
  std::set<fs::path> linked;       // folders that links have led to

  // Whether a link in `folder` to another leads on, and not in a circle.
  bool goes_on_at(const fs::path& folder, const fs::path& link) {
    const fs::path here = fs::canonical(folder), to = fs::canonical(link);
    const bool is_above = std::mismatch(to.begin(), to.end(), here.begin(), here.end()).first == to.end();
    return !is_above && linked.insert(to).second;
  }
};

// Adds what lies in `folder` itself, and returns the names of the folders there.
std::vector<std::string> list_one(const fs::path& folder, const std::string& prefix, ClassListing& listing) {
  std::vector<std::string> deeper;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string& path = entry.path().native();
    std::string name = path.substr(path.rfind('/') + 1);
    if (name.starts_with('.')) continue;
    std::error_code unknown;
    const fs::file_type type = entry.status(unknown).type();
    if (type == fs::file_type::directory) {
      if (!entry.is_symlink() || listing.goes_on_at(folder, entry.path())) deeper.push_back(std::move(name));
    } else if (is_no_picture(name)) {
      continue;
    } else if (type == fs::file_type::regular) {
      listing.files.push_back(prefix + name);
    } else if (entry.is_symlink()) {
      listing.files.push_back(prefix + name);  // it leads nowhere yet: a picture that cannot be read, and is told of
    }
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

void append(const ClassListing& listing, int32_t label, PictureIndex::Parts& parts) {
  for (const ClassListing::Folder& folder : listing.folders) {
    parts.folders.push_back({.changed = folder.changed});
    parts.set_name(parts.folders.back(), folder.below);
  }
  for (const std::string& name : listing.files) {
    parts.files.push_back({.label = label});
    parts.set_name(parts.files.back(), name);
  }
}

// Calls body(i, descriptor of the folder of its class) for each file, on several threads.
template <class Body>
void for_each_file(const fs::path& root, const PictureIndex& index, int threads, const Body& body) {
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

bool files_are_current(const PictureIndex& index, const fs::path& root, int threads) {
  std::atomic<bool> same{true};
  for_each_file(root, index, threads, [&](size_t i, int folder) {
    const IndexedFile& file = index.files()[i];
    if (same && !is_as_before(file, state_of(folder, index.name(file).data()))) same = false;
  });
  return same;
}

bool is_current(const PictureIndex& index, const fs::path& root, const std::vector<std::string>& classes, int threads) {
  if (!std::ranges::equal(index.classes(), classes)) return false;
  for (const IndexedFolder& folder : index.folders())
    if (folder.changed == kUnsettled ||
        folder.changed != state_of(AT_FDCWD, (root / index.name(folder)).c_str()).changed)
      return false;
  return files_are_current(index, root, threads);
}

// False when the file cannot be read, which may be otherwise the next time.
bool measure(const fs::path& path, IndexedFile& file) {
  std::optional<PictureExtent> extent;
  try {
    const InputFile input(path);
    input.bytes();
    extent = file.bytes > kMaxPictureBytes
                 ? PictureExtent{}
                 : read_extent([&](int64_t offset, std::span<uint8_t> into) { return input.read(offset, into); });
  } catch (const DataError&) {
  }
  file.height = extent ? extent->height : 0;
  file.width = extent ? extent->width : 0;
  return extent.has_value();
}

// What an earlier index says of a file.
class Known {
public:
  explicit Known(const PictureIndex* index) : index_(index) {
    if (index != nullptr) classes_ = index->classes();
  }
  // The file is at `place` where none has come or gone before it.
  const IndexedFile* find(std::string_view name_of_class, std::string_view below, size_t place) const {
    if (index_ == nullptr) return nullptr;
    const std::span<const IndexedFile> files = index_->files();
    const auto key = [&](const IndexedFile& file) {
      return std::pair(classes_[static_cast<size_t>(file.label)], index_->name(file));
    };
    const std::pair wanted(name_of_class, below);
    if (place < files.size() && key(files[place]) == wanted) return &files[place];
    const auto found = std::ranges::lower_bound(files, wanted, {}, key);
    return found != files.end() && key(*found) == wanted ? &*found : nullptr;
  }

private:
  const PictureIndex* index_;
  std::vector<std::string_view> classes_;
};

// Length, time and extent of each file of a walk.
std::vector<IndexedFile> measured(const PictureIndex& walk, const PictureIndex* before, const fs::path& root,
                                  const IndexOptions& options, int64_t now) {
  const Known known(before);
  const std::vector<std::string_view> classes = walk.classes();
  std::vector<IndexedFile> files(walk.files().begin(), walk.files().end());
  MeasureProgress progress(options, files.size());
  for_each_file(root, walk, threads_of(options), [&](size_t i, int folder) {
    IndexedFile& file = files[i];
    const std::string_view name = walk.name(file), name_of_class = classes[static_cast<size_t>(file.label)];
    const FileState state = state_of(folder, name.data());
    file.bytes = std::max<int64_t>(state.bytes, 0);
    const IndexedFile* old = known.find(name_of_class, name, i);
    bool reliable = true;
    if (old != nullptr && is_as_before(*old, state)) {
      file.height = old->height;
      file.width = old->width;
    } else {
      reliable = measure(root / name_of_class / name, file);
    }
    file.changed = reliable && state.changed < settled_before(now) ? state.changed : kUnsettled;
    progress.next();
  });
  return files;
}

// Of a list, whose files are all in one folder.
constexpr std::string_view kFolderOfList = ".";

// Where each name is, if `index` has the files that are named and no others.
std::optional<std::vector<uint32_t>> places_in(const PictureIndex& index, const NameList& names) {
  const Known known(&index);
  const size_t count = index.files().size();
  std::vector<uint32_t> places;
  places.reserve(names.size());
  std::vector<bool> named(count);
  size_t next = 0;
  for (size_t i = 0; i < names.size(); ++i) {
    const IndexedFile* file = known.find(kFolderOfList, names[i], next);
    if (file == nullptr) return std::nullopt;
    const auto place = static_cast<size_t>(file - index.files().data());
    named[place] = true;
    places.push_back(static_cast<uint32_t>(place));
    next = place + 1;
  }
  return std::ranges::count(named, true) == static_cast<std::ptrdiff_t>(count) ? std::optional(std::move(places))
                                                                               : std::nullopt;
}

NamedFiles sorted_files(const NameList& names) {
  std::vector<uint32_t> order(names.size()), places(names.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, {}, [&](uint32_t i) { return names[i]; });
  PictureIndex::Parts parts;
  parts.set_name(parts.folders.emplace_back(), kFolderOfList);
  for (size_t k = 0; k < order.size(); ++k) {
    const std::string_view name = names[order[k]];
    if (k == 0 || name != names[order[k - 1]]) parts.set_name(parts.files.emplace_back(), name);
    places[order[k]] = static_cast<uint32_t>(parts.files.size() - 1);
  }
  return {PictureIndex(std::move(parts)), std::move(places)};
}

}  // namespace

PictureIndex::Parts walk_folder(const fs::path& root, const std::vector<std::string>& classes, int threads) {
  std::vector<ClassListing> found(classes.size());
  parallel_for(
      static_cast<int64_t>(classes.size()), threads,
      [&](int64_t c) { found[static_cast<size_t>(c)] = list_class(root, classes[static_cast<size_t>(c)]); }, 1);
  PictureIndex::Parts parts;
  for (size_t c = 0; c < classes.size(); ++c) {
    append(found[c], static_cast<int32_t>(c), parts);
    found[c] = {};
  }
  return parts;
}

PictureIndex scan_folder(const fs::path& root, const std::vector<std::string>& classes, const fs::path& index,
                         const IndexOptions& options, int64_t now) {
  const int threads = threads_of(options);
  const std::optional<PictureIndex> before = read_index(index);
  if (before && is_current(*before, root, classes, threads)) return *before;
  PictureIndex::Parts parts = walk_folder(root, classes, threads);
  for (IndexedFolder& folder : parts.folders)
    if (folder.changed >= settled_before(now)) folder.changed = kUnsettled;
  PictureIndex walk(std::move(parts));
  if (!can_keep_index(index)) return walk;
  PictureIndex fresh = walk.with(measured(walk, before ? &*before : nullptr, root, options, now));
  keep_index(fresh, index);
  return fresh;
}

NamedFiles scan_files(const fs::path& root, const NameList& names, const fs::path& index, const IndexOptions& options,
                      int64_t now) {
  if (!can_keep_index(index)) return sorted_files(names);
  const std::optional<PictureIndex> before = read_index(index);
  std::optional<std::vector<uint32_t>> places = before ? places_in(*before, names) : std::nullopt;
  if (places && files_are_current(*before, root, threads_of(options))) return {*before, std::move(*places)};
  NamedFiles files = places ? NamedFiles{*before, std::move(*places)} : sorted_files(names);
  files.index = files.index.with(measured(files.index, before ? &*before : nullptr, root, options, now));
  if (!before || !before->same_as(files.index)) keep_index(files.index, index);
  return files;
}

}  // namespace convolt
