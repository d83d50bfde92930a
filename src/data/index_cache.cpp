#include "data/index_cache.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <exception>

#include "convolt/error.h"
#include "data/packed_format.h"
#include "io/cache_folder.h"

namespace convolt {

namespace fs = std::filesystem;

fs::path index_path(const fs::path& data, std::string_view part) {
  std::error_code error;
  std::string key = fs::canonical(data, error).string();
  const fs::path cache = cache_folder();
  if (error || cache.empty()) return {};
  if (!part.empty()) key.append(1, '\0').append(part);
  const std::span bytes(reinterpret_cast<const uint8_t*>(key.data()), key.size());
  return cache / "index" / fmt::format("{:016x}.idx", packed_hash(bytes));
}

std::optional<PictureIndex> read_index(const fs::path& index) {
  if (index.empty()) return std::nullopt;
  try {
    return PictureIndex::read(index);
  } catch (const DataError&) {
    return std::nullopt;
  }
}

bool can_keep_index(const fs::path& index) {
  std::error_code error;
  if (index.empty()) return false;
  fs::create_directories(index.parent_path(), error);
  return ::access(index.parent_path().c_str(), W_OK | X_OK) == 0;
}

void keep_index(const PictureIndex& content, const fs::path& index) noexcept {
  try {
    content.write(index);
  } catch (const std::exception&) {  // a full disk, or a folder that has gone
  }
}

FileState state_of(int folder, const char* path) {
  struct stat status {};
  if (::fstatat(folder, path, &status, 0) != 0) return {};
  return {int64_t{status.st_ctim.tv_sec} * 1'000'000'000 + status.st_ctim.tv_nsec, status.st_size};
}

bool is_as_before(const IndexedFile& file, const FileState& state) {
  return file.changed != kUnsettled && file.changed == state.changed && file.bytes == state.bytes;
}

int64_t clock_now() { return std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count(); }

}  // namespace convolt
