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

namespace convolt {
namespace {

namespace fs = std::filesystem;

void unpack_sample(const Dataset& set, int64_t i, const UnpackOptions& o, const std::string& folder) {
  const std::string full = set.name(i), name = full.substr(o.input.size() + (o.input.ends_with('/') ? 0 : 1));
  if (leads_out(name)) throw DataError(full + ": has a name that leads out of the folder; it is not unpacked");
  const RawSample sample = set.read(i);
  const fs::path path = fs::path(folder) / (sample.height > 0 ? name + ".png" : name);
  make_output_folder(path.parent_path().string());
  if (fs::exists(path)) throw DataError(full + ": is there twice, or is a folder too; it is not unpacked");
  AtomicFile file(path.string());
  const auto content = sample.content();
  if (sample.height > 0)
    file.write(encode_png(content, sample.height, sample.width, sample.channels));
  else
    file.write(std::as_bytes(content));
  file.commit();
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
