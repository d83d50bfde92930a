#include "io/append_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <limits>

#include "convolt/error.h"
#include "io/atomic_file.h"

namespace convolt {

AppendFile AppendFile::create(std::string path) { return {std::move(path), O_TRUNC}; }

AppendFile AppendFile::resume(std::string path, const std::function<std::string(std::string_view)>& rewrite) {
  std::string text;
  if (std::error_code ignored; std::filesystem::exists(path, ignored)) {
    const auto bytes = read_file(path, std::numeric_limits<int64_t>::max());
    text.assign(bytes.begin(), bytes.end());
  }
  if (const std::string kept = rewrite(text); kept != text) {
    AtomicFile file(path);
    file.write(kept);
    file.commit();
  }
  return {std::move(path), 0};
}

AppendFile::AppendFile(std::string path, int extra_flags)
    : path_(std::move(path)), file_(path_, O_WRONLY | O_CREAT | O_APPEND | extra_flags, 0666) {
  if (!file_.valid()) fail();
}

void AppendFile::append(std::string_view bytes) {
  const off_t before = ::lseek(file_.get(), 0, SEEK_END);
  if (file_.write_all(std::as_bytes(std::span(bytes)))) return;
  const int reason = errno;
  // Otherwise the next piece would be glued to half of this one. Nothing more can be done where this fails too.
  if (before >= 0) static_cast<void>(!::ftruncate(file_.get(), before));
  errno = reason;
  fail();
}

void AppendFile::fail() const { throw Error(fmt::format("cannot write {}: {}", path_, errno_reason())); }

}  // namespace convolt
