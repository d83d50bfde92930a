// An open file that closes itself, and reads and writes that finish or throw.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace convolt {

// Owns a POSIX file descriptor. Move-only; not thread-safe.
class Descriptor {
public:
  Descriptor() = default;
  // open(2) with O_CLOEXEC added. Check valid(): errno holds the reason when it is false.
  Descriptor(const std::string& path, int flags, unsigned mode = 0);
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept;
  Descriptor& operator=(Descriptor&& other) noexcept;

  bool valid() const { return fd_ >= 0; }
  int get() const { return fd_; }
  // Writes all of `bytes`, going on after short writes and signals. False with errno set when that fails.
  bool write_all(std::span<const std::byte> bytes);
  // Reads until `bytes` is full or the file ends; the number of bytes read, or -1 with errno set.
  std::ptrdiff_t read_up_to(std::span<std::byte> bytes);
  // Takes the file, or folder, for this process until it closes it (flock(2)), without waiting. False where another has
  // it; true as well where the file system knows no locks.
  bool lock() const;
  // False with errno set when the system reports a late write error.
  bool close();

private:
  int fd_ = -1;
};

// What errno says, in words: "No space left on device".
std::string errno_reason();

}  // namespace convolt
