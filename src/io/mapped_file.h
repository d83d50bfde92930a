// A file as memory.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "io/descriptor.h"

namespace convolt {

// Maps a regular file for reading. Any thread may use it. Move-only.
class MappedFile {
public:
  // Throws DataError with path and reason.
  explicit MappedFile(std::string path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  const std::string& path() const { return path_; }
  // Valid as long as the object, or the one that it is moved to.
  std::span<const uint8_t> bytes() const { return bytes_; }
  // Touching what a file has lost kills the process: false when it has become shorter since it was mapped.
  bool whole() const;
  // Copies a part of bytes() without touching it; false when the file has lost any of it.
  bool copy(std::span<const uint8_t> part, std::span<uint8_t> into) const;
  // Has the system fetch a part of bytes() from the disk, without waiting for it.
  void will_need(std::span<const uint8_t> part) const;

private:
  std::string path_;
  Descriptor file_;
  std::span<const uint8_t> bytes_;
};

}  // namespace convolt
