#include "convolt/pack.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

#include "convolt/error.h"
#include "data/decode.h"
#include "data/packed_name.h"
#include "data/packed_sample.h"
#include "data/packed_writer.h"
#include "data/parallel_for.h"
#include "data/split_names.h"
#include "io/atomic_file.h"
#include "io/descriptor.h"
#include "io/mapped_file.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

// Both splits as one list: training first.
class Source {
public:
  explicit Source(const PackOptions& o) : path_(o.data_path) {
    splits_[0] = open_dataset({o.data_path, o.format, Split::train, {.use = false}});
    splits_[1] = open_dataset({o.data_path, o.format, Split::validation, {.use = false}});
    classes_ = splits_[0]->class_names();
    if (splits_[1] && splits_[1]->class_names() != classes_)  // as a training wants them
      throw DataError(
          fmt::format("{}: the validation set has {} classes that are not the {} of the training set; "
                      "expected the same in the same order",
                      path_, splits_[1]->class_names().size(), classes_.size()));
    rename_twins();
  }

  int64_t size() const { return splits_[0]->size() + (splits_[1] ? splits_[1]->size() : 0); }
  const std::vector<std::string>& classes() const { return classes_; }
  std::string describe() const { return splits_[0]->describe(); }

  int split_of(int64_t i) const { return i < splits_[0]->size() ? 0 : 1; }
  const Dataset& set_of(int64_t i) const { return *splits_[static_cast<size_t>(split_of(i))]; }
  int64_t index_of(int64_t i) const { return i - (split_of(i) == 1 ? splits_[0]->size() : 0); }
  std::string full_name(int64_t i) const { return set_of(i).name(index_of(i)); }

  // What stands below the folder of the class, or of the data set where there is no such folder; no two samples of a
  // class and split have the same.
  std::string short_name(int64_t i) const {
    const auto found = renamed_.find(i);
    return found != renamed_.end() ? found->second : name_below(i);
  }

private:
  std::string name_below(int64_t i) const {
    const fs::path parent = fs::path(path_).parent_path();  // where the files of a list are, and archives beside it
    std::string name = full_name(i);
    const auto cut = [&](const std::string& front) {
      if (!name.starts_with(front)) return false;
      name.erase(0, front.size());
      return true;
    };
    if (!cut(path_.ends_with('/') ? path_ : path_ + "/")) cut((parent / "").string());
    name = kept_inside(name);
    const std::string folder = class_of(i) + "/";
    if (cut(folder)) return name;
    const std::string first = name.substr(0, name.find('/'));
    if (split_called(first)) cut(first + "/" + folder);
    return name;
  }

  const std::string& class_of(int64_t i) const {
    const int64_t label = set_of(i).label(index_of(i));
    if (label < 0 || label >= static_cast<int64_t>(classes_.size()))
      throw DataError(fmt::format("{}: has label {} of {} classes", full_name(i), label, classes_.size()));
    return classes_[static_cast<size_t>(label)];
  }

  // Of samples whose names differed in what leads out of a folder, or that are there several times.
  void rename_twins() {
    std::unordered_set<uint64_t> taken;
    const auto take = [&](int64_t i, const std::string& name) {
      const std::string path = fmt::format("{}/{}/{}", split_of(i), class_of(i), name);
      return taken.insert(packed_hash({reinterpret_cast<const uint8_t*>(path.data()), path.size()})).second;
    };
    for (int64_t i = 0; i < size(); ++i) {
      const std::string name = name_below(i);
      if (take(i, name)) continue;
      int number = 2;
      while (!take(i, numbered_name(name, number))) ++number;
      renamed_[i] = numbered_name(name, number);
    }
  }

  std::string path_;
  std::array<std::unique_ptr<Dataset>, 2> splits_;
  std::vector<std::string> classes_;
  std::unordered_map<int64_t, std::string> renamed_;
};

// Has threads act one after another, in the order of their numbers, whenever they are ready.
class Turns {
public:
  explicit Turns(int64_t first) : turn_(first) {}

  // What `act` throws ends the turns of all that come later: they do nothing.
  template <class Act>
  void take(int64_t number, const Act& act) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ended_ || turn_ == number; });
    if (ended_) return;
    try {
      act();
    } catch (...) {
      ended_ = true;
      changed_.notify_all();
      throw;
    }
    ++turn_;
    changed_.notify_all();
  }
  bool ended() const {
    const std::lock_guard lock(mutex_);
    return ended_;
  }

private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int64_t turn_;
  bool ended_ = false;
};

void check(const PackOptions& o) {
  const auto require = [](bool good, const std::string& what, const std::string& expected, const std::string& found) {
    if (!good) throw UsageError("pack: " + what + " is " + found + ", expected " + expected);
  };
  require(o.output.ends_with(kPackedEnding) && fs::path(o.output).filename().string().size() > kPackedEnding.size(),
          "the output", "a name that ends in .cvt", "'" + o.output + "'");
  require(o.max_side >= 0, "the longest side", "a length in pixels, or 0", std::to_string(o.max_side));
  require(o.shards >= 1 && o.shards <= 99'999, "the number of shards", "1 to 99999", std::to_string(o.shards));
  require(o.threads >= 1 && o.threads <= 1024, "the number of threads", "1 to 1024", std::to_string(o.threads));
}

std::string name_of(PackAs as) {
  constexpr std::array kNames{"files", "pixels", "jpeg"};
  return kNames[static_cast<size_t>(as)];
}

// Of everything but what is in the pictures: a run goes on with the files of an earlier one where it agrees.
uint64_t set_id_of(const Source& source, const PackedTexts& texts, int shards) {
  uint64_t id = static_cast<uint64_t>(shards);
  const auto add = [&](const std::string& text) {
    const std::array<uint64_t, 2> both{id, packed_hash({reinterpret_cast<const uint8_t*>(text.data()), text.size()})};
    id = packed_hash(bytes_of(both));
  };
  for (const auto& [key, value] : texts.metadata) add(key + "=" + value);
  for (const std::string& name : texts.classes) add(name);
  for (int64_t i = 0; i < source.size(); ++i) add(fmt::format("{} {}", source.split_of(i), source.full_name(i)));
  return id;
}

// The file of a shard as far as it tells whether it belongs to this set.
bool is_done(const std::string& path, const PackedHeader& expected) {
  if (!fs::exists(path)) return false;
  std::array<uint8_t, sizeof(PackedHeader)> begin{};
  Descriptor file(path, O_RDONLY);
  if (file.read_up_to(std::as_writable_bytes(std::span(begin))) != static_cast<std::ptrdiff_t>(begin.size()))
    return false;
  PackedHeader found;
  std::copy(begin.begin(), begin.end(), reinterpret_cast<uint8_t*>(&found));
  PackedHeader sealed = found;
  seal(sealed);
  return sealed.hash == found.hash && found.set_id == expected.set_id && found.shard == expected.shard;
}

class Packer {
public:
  explicit Packer(const PackOptions& options) : o_(options), source_(options) {
    texts_.classes = source_.classes();
    texts_.metadata = {{"source", o_.data_path},
                       {"format", source_.describe()},
                       {"as", name_of(o_.as)},
                       {"max-side", std::to_string(o_.max_side)}};
    header_.shards = static_cast<uint32_t>(o_.shards);
    header_.set_id = set_id_of(source_, texts_, o_.shards);
    if (o_.shards > source_.size())
      throw UsageError(
          fmt::format("pack: --shards {} is more than the {} pictures of {}", o_.shards, source_.size(), o_.data_path));
  }

  PackResult run() {
    const std::vector<bool> done = shards_done();
    for (int k = 0; k < o_.shards; ++k) {
      header_.shard = static_cast<uint32_t>(k);
      if (!done[static_cast<size_t>(k)]) pack_shard();
      count_shard();
    }
    return std::move(result_);
  }

private:
  std::string path() const { return shard_path(o_.output, header_.shard, header_.shards); }
  // The first sample of this shard, or behind the last where `next`.
  int64_t begin(int next = 0) const { return source_.size() * (header_.shard + next) / o_.shards; }

  // Shards of a run that was cut off are kept, but where all is to be packed anew: the pictures may be others by then.
  std::vector<bool> shards_done() {
    std::vector<bool> done(static_cast<size_t>(o_.shards), false);
    if (o_.overwrite) {
      if (o_.shards > 1) remove_shards();  // else a run that is cut off leaves a set of old and new ones
      return done;
    }
    for (header_.shard = 0; header_.shard < header_.shards; ++header_.shard) {
      done[header_.shard] = is_done(path(), header_);
      if (fs::exists(path()) && !done[header_.shard])
        throw UsageError(path() + ": is there already; choose another --out, or give --overwrite");
    }
    if (std::find(done.begin(), done.end(), false) != done.end()) return done;
    header_.shard = 0;
    throw UsageError(path() + ": is there already, packed from the same set; give --overwrite to pack it again");
  }

  void remove_shards() {
    std::error_code error;
    for (header_.shard = 0; header_.shard < header_.shards; ++header_.shard) {
      fs::remove(file_behind(path()), error);
      if (error) throw Error(path() + ": cannot be removed (" + error.message() + ")");
    }
  }

  void pack_shard() {
    PackedWriter writer(path(), header_, texts_, o_.overwrite);
    const int64_t first = begin() + writer.done();
    Turns turns(first);
    parallel_for(
        begin(1) - first, o_.threads,
        [&](int64_t k) {
          const int64_t i = first + k;
          if (turns.ended()) return;
          PackedSample sample;
          std::exception_ptr error;
          try {
            sample = packed_sample(source_.set_of(i), source_.index_of(i), o_);
          } catch (...) {
            error = std::current_exception();
          }
          turns.take(i, [&] {
            if (error) std::rethrow_exception(error);
            write(writer, sample, i);
          });
        },
        1);
    if (header_.shard + 1 == header_.shards && result_.train + result_.validation + writer.stored() == 0) {
      writer.discard();
      if (o_.shards > 1) remove_shards();
      throw DataError(fmt::format("{}: none of its {} pictures can be used; convolt verify names them", o_.data_path,
                                  source_.size()));
    }
    writer.commit();
  }

  void write(PackedWriter& writer, const PackedSample& sample, int64_t i) {
    if (sample.left_out.empty()) {
      PackedEntry entry = sample.entry;
      entry.split = static_cast<uint8_t>(source_.split_of(i));
      writer.add(entry, sample.content.content(), source_.short_name(i));
    } else {
      const std::string name = source_.full_name(i);
      if (o_.fail_on_bad) throw DataError(name + ": " + sample.left_out + "; --bad-images skip leaves it out");
      writer.leave_out(name, sample.left_out);
    }
    if (o_.on_progress) o_.on_progress(i + 1, source_.size());
  }

  // From the file itself, whether it was packed now or by a run that was cut off.
  void count_shard() {
    const MappedFile map(path());
    const PackedFile file(map.bytes(), path());
    result_.train += file.training_size();
    result_.validation += file.size() - file.training_size();
    result_.bytes += file.bytes();
    for (const auto& [name, reason] : file.texts().left_out) result_.left_out.push_back({name, reason});
  }

  const PackOptions& o_;
  Source source_;
  PackedTexts texts_;
  PackedHeader header_;
  PackResult result_;
};

}  // namespace

PackResult pack_dataset(const PackOptions& options) {
  check(options);
  prepare_decoder();
  return Packer(options).run();
}

}  // namespace convolt
