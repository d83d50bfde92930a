// What the members of archives mean. Two layouts are known: an image folder, exactly as open_image_folder() reads one
// from disk, and WebDataset (T. Breuel; https://github.com/webdataset/webdataset): members whose names agree up to the
// first dot of the last component are one sample, a picture and a .cls or .json file with its class.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/archive.h"

namespace convolt {

using Archives = std::vector<std::unique_ptr<Archive>>;

struct ArchiveSample {
  uint32_t archive, member;  // indices
  int32_t label;
};
struct ArchiveSamples {
  std::vector<std::string> classes;
  std::vector<ArchiveSample> samples;
};

// True when any picture has a .cls file beside it, or a .json and no train/<class>/ or val/<class>/ says otherwise.
bool is_webdataset(const Archives& archives);

// All samples in the order of archives and members; `classes` is how many there are at least, from another split.
// Throws FormatError for a picture without a class number.
ArchiveSamples webdataset_samples(const Archives& archives, size_t classes);

// The samples of an image folder that begins at the root or in the only folder there. `whole`: the archives are this
// split as their names say, and class folders without train or val above them are, too. Absent when there is no such
// split. Of members with one path the last counts, as if all had been unpacked in turn. Throws DataError as
// open_image_folder() does, and FormatError for a sample that cannot be read from an archive.
std::optional<ArchiveSamples> folder_samples(const Archives& archives, Split split, bool whole);

}  // namespace convolt
