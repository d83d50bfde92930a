// Files that are whole or not there: readers of a path see the old contents or the new, never a part, whatever fails.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/descriptor.h"

namespace convolt {

// The file that `path` names for a writer: `path` itself, or what the links there finally lead to, whether that is
// there or not. Throws Error for what is there and no regular file, and for what lies in /dev or /proc, as /dev/stdout
// does even where it leads to a file.
std::string file_behind(const std::string& path);

// Writes a temporary file beside file_behind(path) (".NAME.tmp-PID-N") and renames it over that at commit(), so links
// to it stay. Without commit() the destructor removes it again; only a killed process leaves one behind. Every method
// throws Error with the path and the system's reason, and until commit() has renamed, the old file is untouched. Not
// thread-safe; several writers of one path do not disturb each other, the last commit stays.
class AtomicFile {
public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Appends, unbuffered: hand over large pieces.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  // Brings the bytes to the disk (fsync), renames, and brings the folder entry to the disk. At most once, and nothing
  // is written after it.
  void commit();

private:
  [[noreturn]] void fail() const;  // with errno's reason

  std::string path_, target_;
  std::string temporary_;  // empty once it is gone
  Descriptor file_;
  Descriptor folder_;
};

// Throws what an AtomicFile of that name would, for those who write only when much work is done. Leaves nothing behind.
void check_writable(const std::string& path);

// Makes the folder, and those above it, where there is none. Throws Error with path and reason.
void make_output_folder(const std::string& path);

// The bytes of a regular file. Throws DataError with path and reason: missing, unreadable, not a regular file, larger
// than `max_bytes`.
std::vector<uint8_t> read_file(const std::string& path, int64_t max_bytes);

}  // namespace convolt
