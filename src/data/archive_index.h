// What is known of an archive from an earlier start: its members, and how large those are that somebody looked at. It
// holds while the archive's length and change time are as they were.
#pragma once

#include <vector>

#include "data/archive_layout.h"
#include "data/index_cache.h"

namespace convolt {

// The members that an index has. Throws FormatError for what cannot be any.
std::vector<ArchiveMember> members_of(const PictureIndex& index, const std::string& path);

// The index of one archive, which is looked at now: made before the archive is opened.
class ArchiveIndex {
public:
  // Nothing is read or kept where the options say so, or where the archive changed shortly before `now`.
  ArchiveIndex(const std::filesystem::path& archive, const IndexOptions& options, int64_t now);

  // None where there is no index that holds.
  KnownMembers members() const;
  // Whether keep() would.
  bool keeps() const { return !index_.empty(); }
  void keep(const Archive& archive) const;

private:
  std::filesystem::path index_;  // empty where nothing is kept
  FileState state_;
};

}  // namespace convolt
