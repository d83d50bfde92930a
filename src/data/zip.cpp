// Zip archives by libzip. One of its handles serves one thread at a time, so there is a small pool of them.
#include <sys/stat.h>
#include <zip.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "convolt/error.h"
#include "data/archive.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;
using Kind = ArchiveMember::Kind;

struct Discard {
  void operator()(zip_t* zip) const { zip_discard(zip); }
};
struct CloseFile {
  void operator()(zip_file_t* file) const { zip_fclose(file); }
};
using Handle = std::unique_ptr<zip_t, Discard>;

// One at a time: libzip asks for the time zone, which ThreadSanitizer cannot see to be safe.
Handle open_handle(const fs::path& path) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  int code = 0;
  Handle zip(zip_open(path.c_str(), ZIP_RDONLY, &code));
  if (zip) return zip;
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  const std::string reason = zip_error_strerror(&error);
  zip_error_fini(&error);
  throw FormatError(path.string() + ": cannot be read as a zip archive (" + reason + "); is the download complete?");
}

// Handles on one archive, opened as they are needed. Each holds the whole directory in memory, hence the limit.
class Handles {
public:
  explicit Handles(const fs::path& path) : path_(path), bytes_(InputFile(path).bytes()) {}

  // Waits for an idle one.
  Handle take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !idle_.empty() || count_ < kMost; });
    if (idle_.empty()) {
      if (InputFile(path_).bytes() != bytes_)
        throw DataError(path_.string() + ": is no longer the archive that was opened");
      idle_.push_back(open_handle(path_));
      ++count_;
    }
    Handle zip = std::move(idle_.back());
    idle_.pop_back();
    return zip;
  }
  void give_back(Handle zip) {
    {
      const std::lock_guard lock(mutex_);
      idle_.push_back(std::move(zip));
    }
    changed_.notify_one();
  }

private:
  static constexpr int kMost = 4;

  fs::path path_;
  int64_t bytes_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Handle> idle_;
  int count_ = 0;
};

// A handle for as long as it lives.
class Lease {
public:
  explicit Lease(Handles& handles) : handles_(handles), zip_(handles.take()) {}
  ~Lease() { handles_.give_back(std::move(zip_)); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  zip_t* get() const { return zip_.get(); }

private:
  Handles& handles_;
  Handle zip_;
};

// One member, read from front to back.
class Member {
public:
  Member(zip_t* zip, int64_t place, std::string name)
      : name_(std::move(name)), file_(zip_fopen_index(zip, static_cast<zip_uint64_t>(place), 0)) {
    if (!file_) fail(zip_get_error(zip));
  }

  // Fewer than asked at the end, where the checksum is compared.
  size_t read(std::span<uint8_t> into) {
    size_t done = 0;
    while (done < into.size()) {
      const zip_int64_t got = zip_fread(file_.get(), into.data() + done, into.size() - done);
      if (got < 0) fail(zip_file_get_error(file_.get()));
      if (got == 0) break;
      done += static_cast<size_t>(got);
    }
    return done;
  }

private:
  [[noreturn]] void fail(zip_error_t* error) const {
    throw DataError(name_ + ": cannot be read (" + zip_error_strerror(error) + ")");
  }

  std::string name_;
  std::unique_ptr<zip_file_t, CloseFile> file_;
};

class Zip final : public Archive {
public:
  Zip(const fs::path& path, KnownMembers known) : Archive(path), handles_(path) {
    if (known) {
      members_ = std::move(*known);
      return;
    }
    const Lease zip(handles_);
    const zip_int64_t count = zip_get_num_entries(zip.get(), 0);
    for (zip_int64_t i = 0; i < count; ++i) add(zip.get(), i);
  }

  // Memory grows with what is found, not with what was declared.
  std::vector<uint8_t> read(const ArchiveMember& member) const override {
    constexpr int64_t kChunk = 1 << 22;
    check_picture_bytes(name_of(member), member.bytes);
    const Lease zip(handles_);
    Member file(zip.get(), member.place, name_of(member));
    std::vector<uint8_t> bytes;
    for (bool more = true; more;) {
      const size_t have = bytes.size();
      // One byte more than there should be, so that the end is reached and the checksum compared.
      const auto want = static_cast<size_t>(std::min(kChunk, member.bytes - static_cast<int64_t>(have) + 1));
      bytes.resize(have + want);
      const size_t got = file.read(std::span(bytes).subspan(have));
      bytes.resize(have + got);
      more = got == want && static_cast<int64_t>(bytes.size()) <= member.bytes;
    }
    if (static_cast<int64_t>(bytes.size()) != member.bytes)
      throw DataError(name_of(member) + ": has another size than the archive says, expected " +
                      std::to_string(member.bytes) + " bytes");
    return bytes;
  }

  // Compressed members are unpacked up to there.
  size_t read_part(const ArchiveMember& member, int64_t offset, std::span<uint8_t> into) const override {
    const Lease zip(handles_);
    Member file(zip.get(), member.place, name_of(member));
    std::vector<uint8_t> skipped(static_cast<size_t>(std::min<int64_t>(offset, 1 << 16)));
    while (offset > 0) {
      const size_t want = std::min(skipped.size(), static_cast<size_t>(offset));
      if (file.read(std::span(skipped).first(want)) < want) return 0;
      offset -= static_cast<int64_t>(want);
    }
    return file.read(into);
  }

private:
  void add(zip_t* zip, zip_int64_t i) {
    const auto place = static_cast<zip_uint64_t>(i);
    zip_stat_t status;
    if (zip_stat_index(zip, place, 0, &status) != 0) return;
    const char* raw = zip_get_name(zip, place, ZIP_FL_ENC_RAW);
    const std::string_view path = raw != nullptr ? raw : "";
    ArchiveMember member{member_name(path)};
    if (member.name.empty()) return;
    member.place = i;
    member.bytes = static_cast<int64_t>(status.size);
    if (path.ends_with('/'))
      member.kind = Kind::folder;
    else if (is_link(zip, place))
      member.kind = Kind::link;
    else if (status.encryption_method != ZIP_EM_NONE)
      member.kind = Kind::encrypted;
    else if (status.comp_method != ZIP_CM_STORE && status.comp_method != ZIP_CM_DEFLATE)
      member.kind = Kind::unknown_method;
    else if (label_file(member.name, member.bytes))
      member.label = read_label(zip, member);
    members_.push_back(std::move(member));
  }

  static bool is_link(zip_t* zip, zip_uint64_t place) {
    zip_uint8_t system = 0;
    zip_uint32_t attributes = 0;
    return zip_file_get_external_attributes(zip, place, 0, &system, &attributes) == 0 && system == ZIP_OPSYS_UNIX &&
           S_ISLNK(attributes >> 16);
  }

  int32_t read_label(zip_t* zip, const ArchiveMember& member) const {
    std::string text(static_cast<size_t>(member.bytes), '\0');
    try {
      Member file(zip, member.place, name_of(member));
      text.resize(file.read({reinterpret_cast<uint8_t*>(text.data()), text.size()}));
    } catch (const DataError&) {
      return -1;
    }
    return label_in(member.name, text);
  }

  mutable Handles handles_;
};

}  // namespace

bool is_zip(const fs::path& path) {
  std::array<uint8_t, 4> head{};
  const size_t got = InputFile(path).read(0, head);
  const std::string_view magic(reinterpret_cast<const char*>(head.data()), got);
  return magic == "PK\3\4" || magic == "PK\5\6" || kZip.named(path.filename().string());
}

// Not at once, as its handles.
const Container kZip{"zip", false, [](std::string_view file) { return file.ends_with(".zip"); },
                     [](const fs::path& path, KnownMembers known) -> std::unique_ptr<Archive> {
                       return std::make_unique<Zip>(path, std::move(known));
                     }};

}  // namespace convolt
