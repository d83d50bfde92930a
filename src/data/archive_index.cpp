#include "data/archive_index.h"

#include <fcntl.h>

#include "convolt/error.h"

namespace convolt {

using Kind = ArchiveMember::Kind;

std::vector<ArchiveMember> members_of(const PictureIndex& index, const std::string& path) {
  std::vector<ArchiveMember> members;
  members.reserve(index.members().size());
  for (const IndexedMember& m : index.members()) {
    if (m.kind > static_cast<uint32_t>(Kind::unknown_method) || m.label < -1 || m.label >= kMostClasses)
      throw FormatError(path + ": is an index that makes no sense");
    members.push_back({.name = std::string(index.name(m)),
                       .bytes = m.bytes,
                       .place = m.place,
                       .kind = static_cast<Kind>(m.kind),
                       .label = m.label,
                       .height = m.height,
                       .width = m.width});
  }
  return members;
}

ArchiveIndex::ArchiveIndex(const std::filesystem::path& archive, const IndexOptions& options, int64_t now)
    : state_(state_of(AT_FDCWD, archive.c_str())) {
  if (!options.use || state_.changed == kUnsettled || state_.changed >= settled_before(now)) return;
  index_ = index_path(archive);
  if (!can_keep_index(index_)) index_.clear();
}

KnownMembers ArchiveIndex::members() const {
  const std::optional<PictureIndex> index = read_index(index_);
  if (!index || index->files().size() != 1 || !is_as_before(index->files()[0], state_)) return std::nullopt;
  try {
    return members_of(*index, index_.string());
  } catch (const FormatError&) {  // is made again
    return std::nullopt;
  }
}

void ArchiveIndex::keep(const Archive& archive) const {
  PictureIndex::Parts parts;
  parts.set_name(parts.folders.emplace_back(), ".");
  parts.files.push_back({.changed = state_.changed, .bytes = state_.bytes});
  parts.set_name(parts.files[0], archive.path().filename().string());
  for (const ArchiveMember& m : archive.members()) {
    parts.members.push_back({.place = m.place,
                             .bytes = m.bytes,
                             .label = m.label,
                             .height = m.height,
                             .width = m.width,
                             .kind = static_cast<uint32_t>(m.kind)});
    parts.set_name(parts.members.back(), m.name);
  }
  keep_index(PictureIndex(std::move(parts)), index_);
}

}  // namespace convolt
