// Data sets of one archive or several: which of them make up a split, and their samples.
#include <algorithm>

#include "convolt/error.h"
#include "data/archive_index.h"
#include "data/measure.h"
#include "data/parallel_for.h"
#include "data/split_names.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

// Open archives, each with its index.
class IndexedArchives {
public:
  IndexedArchives(const std::vector<fs::path>& paths, const Container& container, const IndexOptions& options,
                  int64_t now) {
    for (const fs::path& path : paths) indexes_.emplace_back(path, options, now);
    archives_.resize(paths.size());
    fresh_.resize(paths.size());
    const auto open = [&](int64_t i) {
      const auto a = static_cast<size_t>(i);
      KnownMembers known = indexes_[a].members();
      fresh_[a] = !known;
      archives_[a] = container.open(paths[a], std::move(known));
    };
    parallel_for(static_cast<int64_t>(paths.size()), container.at_once ? threads_of(options) : 1, open, 1);
  }

  const Archives& all() const { return archives_; }
  void prepare() {
    for (const auto& archive : archives_) archive->prepare();
  }
  // Reads the headers of those samples that no index knows, if it can be kept.
  void measure(const std::vector<ArchiveSample>& samples, const IndexOptions& options) {
    std::vector<ArchiveSample> unknown;
    for (const ArchiveSample& s : samples)
      if (indexes_[s.archive].keeps() && archives_[s.archive]->members()[s.member].height < 0) unknown.push_back(s);
    MeasureProgress progress(options, unknown.size());
    parallel_for(static_cast<int64_t>(unknown.size()), threads_of(options), [&](int64_t i) {
      const ArchiveSample& s = unknown[static_cast<size_t>(i)];
      Archive& archive = *archives_[s.archive];
      const auto extent = read_extent([&](int64_t offset, std::span<uint8_t> into) {
        return archive.read_part(archive.members()[s.member], offset, into);
      });
      if (extent) archive.set_extent(s.member, *extent);
      progress.next();
    });
    for (const ArchiveSample& s : unknown)
      if (archives_[s.archive]->members()[s.member].height >= 0) fresh_[s.archive] = 1;
  }
  void keep() const {
    for (size_t a = 0; a < archives_.size(); ++a)
      if (fresh_[a] && indexes_[a].keeps()) indexes_[a].keep(*archives_[a]);
  }

private:
  Archives archives_;
  std::vector<ArchiveIndex> indexes_;
  std::vector<uint8_t> fresh_;  // whether more is known than the index says
};

class ArchiveSet final : public Dataset {
public:
  ArchiveSet(IndexedArchives archives, ArchiveSamples samples, std::string description)
      : archives_(std::move(archives)), samples_(std::move(samples.samples)), description_(std::move(description)) {
    class_names_ = std::move(samples.classes);
  }
  void prepare(const IndexOptions& options) {
    archives_.prepare();
    archives_.measure(samples_, options);
    archives_.keep();
  }

  int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
  int32_t label(int64_t i) const override { return samples_[static_cast<size_t>(i)].label; }
  std::string name(int64_t i) const override { return archive(i).name_of(member(i)); }
  std::string describe() const override { return description_; }

  RawSample read(int64_t i) const override {
    RawSample sample;
    sample.bytes = archive(i).read(member(i));
    return sample;
  }
  bool reads_parts() const override { return true; }
  size_t read_part(int64_t i, int64_t offset, std::span<uint8_t> into) const override {
    return archive(i).read_part(member(i), offset, into);
  }
  std::optional<PictureExtent> extent(int64_t i) const override {
    const ArchiveMember& m = member(i);
    return m.height < 0 ? std::nullopt : std::optional(PictureExtent{m.height, m.width});
  }

private:
  const Archive& archive(int64_t i) const { return *archives_.all()[samples_[static_cast<size_t>(i)].archive]; }
  const ArchiveMember& member(int64_t i) const { return archive(i).members()[samples_[static_cast<size_t>(i)].member]; }

  IndexedArchives archives_;
  std::vector<ArchiveSample> samples_;
  std::string description_;
};

bool names_split(const std::string& name, Split split) {
  return std::ranges::any_of(split_names(split),
                             [&](std::string_view prefix) { return lower_case(name).starts_with(prefix); });
}

// The archives of a split, as far as names tell.
struct Choice {
  std::vector<fs::path> split;     // where `whole` is false, other splits may be in them, too
  std::vector<fs::path> training;  // of a validation split: where the classes of its WebDataset are counted as well
  bool whole = false;
};

std::vector<fs::path> named(const std::vector<fs::path>& paths, Split split) {
  std::vector<fs::path> found;
  std::copy_if(paths.begin(), paths.end(), std::back_inserter(found),
               [&](const fs::path& path) { return names_split(path.filename().string(), split); });
  return found;
}

Choice choose_in_folder(const fs::path& folder, Split split, const Container& container) {
  std::vector<fs::path> all;
  for (const std::string& name : list_files(folder))
    if (container.named(name)) all.push_back(folder / name);
  if (all.empty())
    throw DataError(folder.string() + ": has no ." + std::string(container.name) + " files, as " +
                    std::string(container.name) + " shards should");
  const auto train = named(all, Split::train), validation = named(all, Split::validation);
  if (train.empty() && validation.empty()) return {all, {}, false};
  return split == Split::train ? Choice{train, {}, true} : Choice{validation, train, true};
}

// "train.tar" has "val.tar" beside it, and the other way round; the other's name is in lower case.
fs::path sibling(const fs::path& file, Split split) {
  const std::string name = file.filename().string();
  for (const std::string_view old : split_names(split == Split::train ? Split::validation : Split::train))
    for (const std::string_view other : split_names(split))
      if (lower_case(name).starts_with(old))
        if (const fs::path path = file.parent_path() / (std::string(other) + name.substr(old.size()));
            fs::is_regular_file(path))
          return path;
  return {};
}

// An archive without splits inside is a training set whatever it is called, as one file of CIFAR-10 records is.
Choice choose_file(const fs::path& file, Split split) {
  const std::string name = file.filename().string();
  if (split == Split::train) return {{file}, {}, false};
  if (names_split(name, split)) {
    const fs::path training = sibling(file, Split::train);
    return {{file}, training.empty() ? std::vector<fs::path>{} : std::vector{training}, true};
  }
  const fs::path validation = sibling(file, split);
  if (!validation.empty()) return {{validation}, {file}, true};
  return {{file}, {}, false};
}

std::unique_ptr<Dataset> open_archives(const fs::path& path, Split split, const Container& container,
                                       const IndexOptions& options, int64_t now) {
  const auto open = [&](const std::vector<fs::path>& paths) { return IndexedArchives(paths, container, options, now); };
  const Choice choice = fs::is_directory(path) ? choose_in_folder(path, split, container) : choose_file(path, split);
  if (choice.split.empty()) return nullptr;
  IndexedArchives archives = open(choice.split);
  const bool web = is_webdataset(archives.all());
  if (web && split == Split::validation && !choice.whole) return nullptr;
  size_t classes = 0;
  if (web && !choice.training.empty()) {
    const IndexedArchives training = open(choice.training);
    classes = webdataset_samples(training.all(), 0).classes.size();
    training.keep();
  }
  auto samples =
      web ? webdataset_samples(archives.all(), classes) : folder_samples(archives.all(), split, choice.whole);
  if (!samples) return nullptr;
  auto set = std::make_unique<ArchiveSet>(std::move(archives), std::move(*samples),
                                          (web ? "WebDataset in " : "image folder in ") + std::string(container.name));
  if (!web && split == Split::train) check_all_used(*set, choice.split.front());
  set->prepare(options);
  return set;
}

}  // namespace

std::unique_ptr<Dataset> open_tar(const fs::path& path, Split split, const IndexOptions& index, int64_t now) {
  return open_archives(path, split, kTar, index, now);
}
std::unique_ptr<Dataset> open_zip(const fs::path& path, Split split, const IndexOptions& index, int64_t now) {
  return open_archives(path, split, kZip, index, now);
}

}  // namespace convolt
