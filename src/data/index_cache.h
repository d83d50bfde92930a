// Where indexes are kept, and the rule by which they hold: what is said of a file is true while its length and change
// time are as they were.
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>

#include "data/picture_index.h"

namespace convolt {

// $XDG_CACHE_HOME/convolt/index/<hash of the real path of `data`, and of `part` of it>.idx; empty where there is no
// cache folder.
std::filesystem::path index_path(const std::filesystem::path& data, std::string_view part = {});

// None where there is none, or not a good one.
std::optional<PictureIndex> read_index(const std::filesystem::path& index);
// Whether keep_index() could: what cannot be kept is not worth making. Makes the folder.
bool can_keep_index(const std::filesystem::path& index);
// Where it fails, the next start makes it again.
void keep_index(const PictureIndex& content, const std::filesystem::path& index) noexcept;

// What the system says of a file; nothing where it cannot be asked.
struct FileState {
  int64_t changed = kUnsettled, bytes = -1;
};
// Of what `path` below an open folder, or AT_FDCWD, leads to.
FileState state_of(int folder, const char* path);
bool is_as_before(const IndexedFile& file, const FileState& state);

// Nanoseconds since 1970, as change times are told.
int64_t clock_now();
// What changed later than this could change again without a new time, and is not relied on at the next start: the
// coarsest times are those of FAT, of two seconds.
constexpr int64_t settled_before(int64_t now) { return now - 2'000'000'000; }

}  // namespace convolt
