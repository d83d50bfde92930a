// The files of an image folder or a list, and how large their pictures are: from the index in the cache where that
// still holds, else by walking the folder and reading the files' headers.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "convolt/dataset.h"
#include "data/name_list.h"
#include "data/picture_index.h"

namespace convolt {

// Every regular file below the folders `classes` (sorted bytewise) of `root`, at any depth, in bytewise order of class
// and path below it; hidden ones are left out, and links to folders are not followed below a class, since they may lead
// round in a circle. Sizes and times are not looked at. Throws DataError.
PictureIndex::Parts walk_folder(const std::filesystem::path& root, const std::vector<std::string>& classes,
                                int threads);

// The listing with the size of each picture. What the index says of a file holds while its length and change time are
// as they were, and what it says of the names in a folder while the folder's change time is; both are asked of the file
// system here, on several threads. Where anything has changed all is walked again, and the headers of new and changed
// files are read. What changed less than two seconds before `now` (nanoseconds since 1970) could change again without a
// new time, and is not relied on the next time. An index that is damaged or cannot be written counts as none.
PictureIndex scan_folder(const std::filesystem::path& root, const std::vector<std::string>& classes,
                         const std::filesystem::path& index, const IndexOptions& options, int64_t now);

// The files that are named and, for each name, which of them it is.
struct NamedFiles {
  PictureIndex index;
  std::vector<uint32_t> places;
};
// The same of files that are named, below `root` or absolute: each once and sorted bytewise, with the label 0. `names`
// are in any order, at most 2^32 - 1.
NamedFiles scan_files(const std::filesystem::path& root, const NameList& names, const std::filesystem::path& index,
                      const IndexOptions& options, int64_t now);

}  // namespace convolt
