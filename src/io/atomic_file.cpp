#include "io/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "convolt/error.h"

namespace convolt {

namespace {

// What lies there is made by the system, and a rename would replace it. /dev/shm and the like are folders as others.
bool is_of_the_system(const std::filesystem::path& path) {
  std::error_code error;
  const std::string folder = std::filesystem::canonical(path.has_parent_path() ? path.parent_path() : ".", error);
  return folder == "/dev" || folder == "/proc" || folder.starts_with("/proc/");
}

}  // namespace

std::string file_behind(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
    throw Error(fmt::format("cannot write {}: {}", path,
                            S_ISDIR(status.st_mode) ? "it is a directory" : "it exists and is not a regular file"));
  constexpr int kMostLinks = 40;  // as many as Linux follows
  std::filesystem::path file(path);
  for (int links = 0;; ++links) {
    if (is_of_the_system(file))
      throw Error(fmt::format("cannot write {}: {} is the system's own; name a file elsewhere", path, file.string()));
    std::error_code error;
    const std::filesystem::path to = std::filesystem::read_symlink(file, error);
    if (error) return file.string();  // no link
    if (links == kMostLinks) throw Error(fmt::format("cannot write {}: its links lead round in a circle", path));
    file = file.parent_path() / to;
  }
}

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)), target_(file_behind(path_)) {
  const std::filesystem::path target(target_);
  const std::string folder = target.has_parent_path() ? target.parent_path().string() : ".";
  folder_ = Descriptor(folder, O_RDONLY | O_DIRECTORY);
  if (!folder_.valid()) throw Error(fmt::format("cannot write {}: folder {}: {}", path_, folder, errno_reason()));
  // A file of this name can only be left over from a killed process that had our id: take the next number.
  for (int n = 0; !file_.valid(); ++n) {
    temporary_ = fmt::format("{}/.{}.tmp-{}-{}", folder, target.filename().string(), ::getpid(), n);
    file_ = Descriptor(temporary_, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (!file_.valid() && errno != EEXIST) fail();
  }
}

AtomicFile::~AtomicFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  if (!file_.write_all(bytes)) fail();
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::commit() {
  if (::fsync(file_.get()) != 0) fail();
  if (!file_.close()) fail();
  if (std::rename(temporary_.c_str(), target_.c_str()) != 0) fail();
  temporary_.clear();
  // Some network file systems cannot sync a folder and say EINVAL; they order the rename themselves.
  if (::fsync(folder_.get()) != 0 && errno != EINVAL) fail();
}

void AtomicFile::fail() const { throw Error(fmt::format("cannot write {}: {}", path_, errno_reason())); }

void check_writable(const std::string& path) { const AtomicFile probe(path); }

std::vector<uint8_t> read_file(const std::string& path, int64_t max_bytes) {
  // Not blocking: opening a named pipe would otherwise wait for somebody to write to it.
  Descriptor file(path, O_RDONLY | O_NONBLOCK);
  struct stat status {};
  if (!file.valid() || ::fstat(file.get(), &status) != 0)
    throw DataError(fmt::format("cannot read {}: {}", path, errno_reason()));
  if (!S_ISREG(status.st_mode))
    throw DataError(
        fmt::format("cannot read {}: it is {}", path, S_ISDIR(status.st_mode) ? "a directory" : "not a regular file"));
  const auto check_size = [&](int64_t bytes) {
    if (bytes > max_bytes)
      throw DataError(fmt::format("cannot read {}: expected at most {} bytes, found {}", path, max_bytes, bytes));
  };
  check_size(status.st_size);
  // The size is only a hint: the file may grow or shrink meanwhile, and files of /proc say 0. One byte more shows the
  // end in one read.
  std::vector<uint8_t> bytes(static_cast<size_t>(status.st_size) + 1);
  size_t filled = 0;
  while (true) {
    const std::ptrdiff_t n = file.read_up_to(std::as_writable_bytes(std::span(bytes).subspan(filled)));
    if (n < 0) throw DataError(fmt::format("cannot read {}: {}", path, errno_reason()));
    filled += static_cast<size_t>(n);
    check_size(static_cast<int64_t>(filled));
    if (filled < bytes.size()) break;
    bytes.resize(bytes.size() * 2);
  }
  bytes.resize(filled);
  return bytes;
}

void make_output_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) throw Error("cannot make the folder '" + path + "': " + error.message());
}

}  // namespace convolt
