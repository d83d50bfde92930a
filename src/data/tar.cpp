// Tar archives, plain or compressed, listed by libarchive and then read by offset. Compressed ones are unpacked once.
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <random>
#include <system_error>
#include <unordered_map>

#include "convolt/error.h"
#include "data/archive.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;
using Kind = ArchiveMember::Kind;

// What libarchive reads of one file, through the decompressors that it has built in and no others.
class TarStream {
public:
  TarStream(const fs::path& path, const InputFile& file, int (*support_format)(archive*))
      : path_(path.string()), file_(file), bytes_(file.bytes()), buffer_(1 << 14), archive_(archive_read_new()) {
    if (!archive_) throw std::bad_alloc();
    support_format(get());
    for (const auto support : {archive_read_support_filter_gzip, archive_read_support_filter_bzip2,
                               archive_read_support_filter_xz, archive_read_support_filter_zstd})
      support(get());
    archive_read_set_skip_callback(get(), skip);
    archive_read_set_read_callback(get(), read);
    archive_read_set_callback_data(get(), this);
    check(archive_read_open1(get()));
  }

  archive* get() { return archive_.get(); }

  // False at the end.
  bool next(archive_entry*& entry) {
    const int status = archive_read_next_header(get(), &entry);
    check(status);
    return status != ARCHIVE_EOF;
  }

  // At the end: whether the archive says so itself, by a block of zeros, and not the file alone.
  bool ended() { return archive_filter_bytes(get(), 0) > archive_read_header_position(get()); }
  // Throws FormatError.
  [[noreturn]] void refuse(const std::string& reason) const {
    throw FormatError(path_ + ": cannot be read as a tar archive (" + reason + "); is the download complete?");
  }

  // The next bytes of the entry's data; fewer than asked at its end.
  size_t data(std::span<char> into) {
    size_t done = 0;
    while (done < into.size()) {
      const auto got = archive_read_data(get(), into.data() + done, into.size() - done);
      if (got < 0) check(static_cast<int>(got));
      if (got <= 0) break;
      done += static_cast<size_t>(got);
    }
    return done;
  }

  void check(int status) {
    if (failure_) std::rethrow_exception(failure_);
    if (status >= ARCHIVE_WARN) return;
    const char* reason = archive_error_string(get());
    refuse(reason != nullptr ? reason : "damaged");
  }

private:
  struct Closer {
    void operator()(archive* a) const { archive_read_free(a); }
  };

  static la_ssize_t read(archive* a, void* self, const void** buffer) {
    auto& s = *static_cast<TarStream*>(self);
    try {
      const size_t got = s.file_.read(s.at_, s.buffer_);
      s.at_ += static_cast<int64_t>(got);
      *buffer = s.buffer_.data();
      return static_cast<la_ssize_t>(got);
    } catch (...) {  // no exception may pass through C; check() throws it again
      s.failure_ = std::current_exception();
      archive_set_error(a, EIO, "it cannot be read");
      return ARCHIVE_FATAL;
    }
  }
  static la_int64_t skip(archive*, void* self, la_int64_t request) {
    auto& s = *static_cast<TarStream*>(self);
    const int64_t count = std::clamp<int64_t>(request, 0, std::max<int64_t>(s.bytes_ - s.at_, 0));
    s.at_ += count;
    return count;
  }

  std::string path_;
  const InputFile& file_;
  int64_t bytes_, at_ = 0;
  std::vector<uint8_t> buffer_;
  std::exception_ptr failure_;
  std::unique_ptr<archive, Closer> archive_;
};

// The members of a tar, in the order of the file, with where their bytes lie in it once it is unpacked.
class MemberListing {
public:
  explicit MemberListing(TarStream& stream) : stream_(stream) {
    for (archive_entry* entry = nullptr; stream.next(entry);) {
      check_last();
      add(entry);
    }
    check_last();
    if (!stream.ended()) stream.refuse("it ends without the block of zeros that is the end of a tar");
  }

  std::vector<ArchiveMember> members;

private:
  // The next header must follow where the bytes of the last member end, or these are not its bytes as they are.
  void check_last() {
    constexpr int64_t kBlock = 512;
    if (!awaiting_end_) return;
    ArchiveMember& last = members.back();
    if (archive_read_header_position(stream_.get()) != (last.place + last.bytes + kBlock - 1) / kBlock * kBlock)
      last.kind = Kind::sparse;
    awaiting_end_ = false;
  }

  void add(archive_entry* entry) {
    const char* path = archive_entry_pathname(entry);
    if (path == nullptr) path = archive_entry_pathname_utf8(entry);
    ArchiveMember member{member_name(path != nullptr ? path : "")};
    if (member.name.empty()) return;
    const auto type = archive_entry_filetype(entry);
    const char* target = archive_entry_hardlink(entry);
    if (target == nullptr) target = archive_entry_hardlink_utf8(entry);
    if (target != nullptr) {
      follow(member_name(target), member);
    } else if (type == AE_IFREG) {
      member.bytes = archive_entry_size(entry);
      member.place = archive_filter_bytes(stream_.get(), 0);
      if (archive_entry_sparse_count(entry) > 0) member.kind = Kind::sparse;
      if (label_file(member.name, member.bytes)) member.label = read_label(member);
      awaiting_end_ = true;
    } else if (type == AE_IFDIR || type == AE_IFLNK) {
      member.kind = type == AE_IFDIR ? Kind::folder : Kind::link;
    } else {
      return;  // devices and pipes, which a folder of pictures leaves out as well
    }
    by_name_[member.name] = members.size();
    members.push_back(std::move(member));
  }

  // A second name of a file that came before.
  void follow(const std::string& target, ArchiveMember& link) const {
    link.kind = Kind::link;
    if (const auto found = by_name_.find(target); found != by_name_.end()) {
      std::string name = std::move(link.name);
      link = members[found->second];
      link.name = std::move(name);
    }
  }

  int32_t read_label(const ArchiveMember& member) {
    std::string text(static_cast<size_t>(member.bytes), '\0');
    text.resize(stream_.data(text));
    return label_in(member.name, text);
  }

  TarStream& stream_;
  std::unordered_map<std::string, size_t> by_name_;
  bool awaiting_end_ = false;
};

fs::path temporary_folder() {
  std::error_code error;
  fs::path folder = fs::temp_directory_path(error);
  if (error)
    throw DataError("TMPDIR names no folder that can be used (" + error.message() +
                    "); compressed archives are unpacked there");
  return folder;
}

class Tar final : public Archive {
public:
  Tar(const fs::path& path, KnownMembers known) : Archive(path), file_(path) {
    TarStream stream(path, file_, archive_read_support_format_tar);
    members_ = known ? std::move(*known) : std::move(MemberListing(stream).members);
    compressed_ = archive_filter_count(stream.get()) > 1;
  }

  void prepare() override {
    if (!compressed_) return;
    struct statvfs disk {};
    const fs::path folder = temporary_folder();
    if (statvfs(folder.c_str(), &disk) != 0)
      throw DataError(folder.string() + ": cannot be asked for its free space (" + errno_reason() + ")");
    const auto free_bytes = static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
    file_ = unpack_tar(path(), free_bytes / 10 * 9);  // something else may want the rest
  }

  std::vector<uint8_t> read(const ArchiveMember& member) const override {
    check_picture_bytes(name_of(member), member.bytes);
    std::vector<uint8_t> bytes(static_cast<size_t>(std::clamp<int64_t>(file_.bytes() - member.place, 0, member.bytes)));
    if (file_.read(member.place, bytes) != static_cast<size_t>(member.bytes))
      throw DataError(name_of(member) + ": is cut short; the archive ends within it");
    return bytes;
  }

  size_t read_part(const ArchiveMember& member, int64_t offset, std::span<uint8_t> into) const override {
    const int64_t left = std::max<int64_t>(member.bytes - offset, 0);
    return file_.read(member.place + offset,
                      into.first(static_cast<size_t>(std::min(left, static_cast<int64_t>(into.size())))));
  }

private:
  InputFile file_;
  bool compressed_ = false;
};

// Open for reading and writing, and gone with its last descriptor.
std::pair<Descriptor, fs::path> nameless_file() {
  const fs::path folder = temporary_folder();
  Descriptor file(folder.string(), O_TMPFILE | O_RDWR, 0600);
  if (file.valid()) return {std::move(file), folder};
  // Not every file system has files without names.
  const fs::path name =
      folder / ("convolt-" + std::to_string(getpid()) + "-" + std::to_string(std::random_device()()) + ".tar");
  file = Descriptor(name.string(), O_CREAT | O_EXCL | O_RDWR, 0600);
  if (!file.valid())
    throw DataError(folder.string() + ": no temporary file can be made there (" + errno_reason() +
                    "); TMPDIR names another folder");
  unlink(name.c_str());
  return {std::move(file), folder};
}

}  // namespace

InputFile unpack_tar(const fs::path& path, int64_t limit) {
  const InputFile packed(path);
  TarStream stream(path, packed, archive_read_support_format_raw);
  auto [file, folder] = nameless_file();
  int64_t written = 0;
  archive_entry* entry = nullptr;
  std::vector<char> chunk(1 << 20);
  for (bool more = stream.next(entry); more;) {
    const size_t got = stream.data(chunk);
    more = got == chunk.size();
    written += static_cast<int64_t>(got);
    if (written > limit)
      throw DataError(path.string() + ": unpacks to more than the " + std::to_string(limit) +
                      " bytes that may be used in " + folder.string() +
                      "; set TMPDIR to a folder with more room, or unpack it to a plain .tar");
    if (!file.write_all(std::as_bytes(std::span(chunk).first(got))))
      throw DataError(path.string() + ": cannot be unpacked in " + folder.string() + " (" + errno_reason() +
                      "); set TMPDIR to a folder with more room, or unpack it to a plain .tar");
  }
  return {path, std::move(file)};
}

// By content: a tar, or one behind a compressor's magic number. libarchive tells more, but takes zeros for a tar.
bool is_tar(const fs::path& path) {
  constexpr std::string_view kMagic = "ustar";
  constexpr size_t kMagicAt = 257;
  constexpr std::array<std::string_view, 4> kCompressed{"\x1f\x8b", "BZh",
                                                        "\xfd"
                                                        "7zXZ",
                                                        "\x28\xb5\x2f\xfd"};
  std::array<char, kMagicAt + kMagic.size()> head{};
  const InputFile file(path);
  size_t got = file.read(0, {reinterpret_cast<uint8_t*>(head.data()), head.size()});
  const std::string_view begin(head.data(), got);
  if (std::any_of(kCompressed.begin(), kCompressed.end(), [&](auto magic) { return begin.starts_with(magic); })) {
    try {
      TarStream stream(path, file, archive_read_support_format_raw);
      archive_entry* entry = nullptr;
      got = stream.next(entry) ? stream.data(head) : 0;
    } catch (const FormatError&) {  // another compressed file, or a broken one: only its name tells
      got = 0;
    }
  }
  return (got == head.size() && std::string_view(head.data(), got).ends_with(kMagic)) ||
         kTar.named(path.filename().string());
}

const Container kTar{"tar", true,
                     [](std::string_view file) {
                       for (const char* end : {".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"})
                         if (file.ends_with(end)) return true;
                       return false;
                     },
                     [](const fs::path& path, KnownMembers known) -> std::unique_ptr<Archive> {
                       return std::make_unique<Tar>(path, std::move(known));
                     }};

}  // namespace convolt
