#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "convolt/error.h"

namespace convolt {

MappedFile::MappedFile(std::string path) : path_(std::move(path)), file_(path_, O_RDONLY | O_NONBLOCK) {
  struct stat status {};
  if (!file_.valid() || ::fstat(file_.get(), &status) != 0)
    throw DataError(path_ + ": cannot be opened (" + errno_reason() + ")");
  if (!S_ISREG(status.st_mode)) throw DataError(path_ + ": is not a regular file");
  if (status.st_size == 0) return;  // which cannot be mapped
  const auto size = static_cast<size_t>(status.st_size);
  void* const memory = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file_.get(), 0);
  if (memory == MAP_FAILED) throw DataError(path_ + ": cannot be mapped (" + errno_reason() + ")");
  bytes_ = {static_cast<const uint8_t*>(memory), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), file_(std::move(other.file_)), bytes_(std::exchange(other.bytes_, {})) {}

bool MappedFile::whole() const {
  struct stat status {};
  return ::fstat(file_.get(), &status) == 0 && static_cast<size_t>(status.st_size) >= bytes_.size();
}

bool MappedFile::copy(std::span<const uint8_t> part, std::span<uint8_t> into) const {
  for (size_t done = 0; done < part.size();) {
    const auto at = static_cast<off_t>(part.data() - bytes_.data() + done);
    const ssize_t got = ::pread(file_.get(), into.data() + done, part.size() - done, at);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    done += static_cast<size_t>(got);
  }
  return true;
}

void MappedFile::will_need(std::span<const uint8_t> part) const {
  static const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const auto before = static_cast<size_t>(part.data() - bytes_.data()) % page;
  // A hint: where it fails, reading takes longer.
  static_cast<void>(::madvise(const_cast<uint8_t*>(part.data()) - before, part.size() + before, MADV_WILLNEED));
}

}  // namespace convolt
