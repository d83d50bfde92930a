#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <map>
#include <mutex>

#include "convolt/error.h"
#include "convolt/pack.h"
#include "data/encode_png.h"
#include "data/packed_name.h"
#include "data/parallel_for.h"
#include "io/atomic_file.h"
#include "io/atomic_folder.h"
#include "io/descriptor.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

// The folder appears when all are there: no file needs to appear by itself, under a longer name first.
void write_file(const std::string& sample, const fs::path& path, std::span<const std::byte> bytes) {
  Descriptor file(path.string(), O_WRONLY | O_CREAT | O_EXCL, 0666);
  if (!file.valid() && errno == EEXIST)
    throw DataError(sample + ": is there twice, or is a folder too; it is not unpacked");
  if (!file.valid() && errno == ENAMETOOLONG)
    throw DataError(sample + ": its name is too long for a file, '" + path.filename().string() +
                    "'; it is not unpacked");
  if (!file.valid() || !file.write_all(bytes) || ::fsync(file.get()) != 0 || !file.close())
    throw Error("cannot write " + path.string() + ": " + errno_reason());
}

void unpack_sample(const Dataset& set, int64_t i, const UnpackOptions& o, const std::string& folder) {
  const std::string full = set.name(i), name = full.substr(o.input.size() + (o.input.ends_with('/') ? 0 : 1));
  if (leads_out(name)) throw DataError(full + ": has a name that leads out of the folder; it is not unpacked");
  const RawSample sample = set.read(i);
  const fs::path path = fs::path(folder) / (sample.height > 0 ? name + ".png" : name);
  make_output_folder(path.parent_path().string());
  const auto content = sample.content();
  if (sample.height == 0) return write_file(full, path, std::as_bytes(content));
  const std::string png = encode_png(content, sample.height, sample.width, sample.channels);
  write_file(full, path, std::as_bytes(std::span(png)));
}

}  // namespace

UnpackResult unpack_dataset(const UnpackOptions& o) {
  AtomicFolder folder(o.output);
  UnpackResult result;
  for (const Split split : {Split::train, Split::validation}) {
    const auto set = open_dataset({.path = o.input, .format = "packed", .split = split});
    if (!set) continue;
    std::mutex mutex;
    std::map<int64_t, BadSample> bad;
    parallel_for(set->size(), o.threads, [&](int64_t i) {
      check_interrupt(o.interrupt, o.output);
      try {
        unpack_sample(*set, i, o, folder.path());
      } catch (const DataError& error) {
        if (!o.skip_bad) throw;
        const std::scoped_lock lock(mutex);
        bad[i] = {set->name(i), error.what()};
      }
    });
    result.pictures += set->size() - static_cast<int64_t>(bad.size());
    for (auto& [i, sample] : bad) result.left_out.push_back(std::move(sample));
  }
  folder.commit();
  return result;
}

}  // namespace convolt
