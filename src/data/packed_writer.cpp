#include "data/packed_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>

#include "convolt/error.h"
#include "io/atomic_file.h"

namespace convolt {
namespace {

struct JournalHeader {
  std::array<char, 8> magic{'C', 'V', 'T', 'J', 'R', 'N', 'L', '1'};
  uint64_t set_id = 0;
};

// The partial file, held. Where the file system knows no locks, there is none.
Descriptor hold(const std::string& partial, const std::string& path) {
  constexpr int kRounds = 100;
  for (int round = 0; round < kRounds; ++round) {
    Descriptor file(partial, O_RDWR | O_CREAT, 0666);
    if (!file.valid()) throw Error(fmt::format("cannot write {}: {}", path, errno_reason()));
    if (!file.lock()) throw Error(partial + ": another process is writing it; wait for it, or choose another --out");
    struct stat held {};
    struct stat named {};
    // Its writer may have finished it since it was opened: then it has the name of a whole set.
    if (::fstat(file.get(), &held) == 0 && ::stat(partial.c_str(), &named) == 0 && held.st_dev == named.st_dev &&
        held.st_ino == named.st_ino)
      return file;
  }
  throw Error(partial + ": it becomes another file again and again; choose another --out");
}

int64_t aligned(int64_t at) { return (at + kPackedAlignment - 1) / kPackedAlignment * kPackedAlignment; }

}  // namespace

PackedWriter::PackedWriter(const std::string& path, const PackedHeader& header, PackedTexts texts, bool anew)
    : path_(file_behind(path)),
      partial_(path_ + ".partial"),
      journal_path_(partial_ + "-journal"),
      anew_(anew),
      header_(header),
      texts_(std::move(texts)),
      file_(hold(partial_, path_)) {
  if (!anew_ && std::filesystem::exists(path_)) {  // another process has written it meanwhile
    if (std::filesystem::file_size(partial_) == 0) ::unlink(partial_.c_str());
    throw UsageError(path_ + ": is there already; choose another --out, or give --overwrite");
  }
  journal_ = Descriptor(journal_path_, O_RDWR | O_CREAT, 0666);
  if (!journal_.valid()) fail();
  if (!anew_) resume();
  if (::ftruncate(file_.get(), end_) != 0 || ::ftruncate(journal_.get(), journal_end_) != 0) fail();
  if (journal_end_ > 0) return;
  const JournalHeader begin{.set_id = header_.set_id};
  write(journal_, bytes_of(begin), 0);
  journal_end_ = sizeof begin;
}

void PackedWriter::resume() {
  const std::vector<uint8_t> journal = read_file(journal_path_, std::numeric_limits<int64_t>::max() - 1);
  JournalHeader begin;
  const JournalHeader expected{.set_id = header_.set_id};
  if (journal.size() < sizeof begin) return;
  std::memcpy(&begin, journal.data(), sizeof begin);
  if (std::memcmp(&begin, &expected, sizeof begin) != 0)
    throw UsageError(partial_ +
                     ": was begun with other options or from another data set; remove it, or give --overwrite");
  size_t at = sizeof begin;
  for (Record record; journal.size() - at >= sizeof record;) {
    std::memcpy(&record, journal.data() + at, sizeof record);
    const size_t size = sizeof record + record.entry.name_bytes;
    if (size > journal.size() - at) break;
    const std::string_view text(reinterpret_cast<const char*>(journal.data()) + at + sizeof record,
                                record.entry.name_bytes);
    constexpr size_t kHash = sizeof record.hash;
    if (packed_hash(std::span(journal).subspan(at + kHash, size - kHash)) != record.hash || !take_up(record, text))
      break;
    at += size;
  }
  journal_end_ = static_cast<int64_t>(at);
}

// The journal reaches the disk apart from what it tells of, so a sample counts when its bytes are there.
bool PackedWriter::take_up(const Record& record, std::string_view text) {
  PackedEntry e = record.entry;
  if (record.left_out != 0) {
    const size_t name = std::min(text.size(), static_cast<size_t>(e.name));
    texts_.left_out.emplace_back(text.substr(0, name), text.substr(name));
  } else {
    std::vector<uint8_t> sample(static_cast<size_t>(e.bytes));
    if (static_cast<int64_t>(e.offset) != aligned(end_) ||
        ::pread(file_.get(), sample.data(), sample.size(), static_cast<off_t>(e.offset)) !=
            static_cast<ssize_t>(sample.size()) ||
        packed_hash(sample) != e.hash)
      return false;
    e.name = names_.size();
    names_ += text;
    entries_.push_back(e);
    end_ = static_cast<int64_t>(e.offset + e.bytes);
  }
  ++done_;
  return true;
}

void PackedWriter::add(PackedEntry entry, std::span<const uint8_t> sample, std::string_view name) {
  entry.offset = static_cast<uint64_t>(aligned(end_));
  entry.bytes = sample.size();
  entry.hash = packed_hash(sample);
  entry.name = names_.size();
  entry.name_bytes = static_cast<uint32_t>(name.size());
  write(file_, sample, aligned(end_));  // the gap before it is a hole, which reads as zeros
  note({.entry = entry}, name);
  end_ = static_cast<int64_t>(entry.offset + entry.bytes);
  entries_.push_back(entry);
  names_ += name;
}

void PackedWriter::leave_out(const std::string& name, const std::string& reason) {
  PackedEntry entry;
  entry.name = name.size();
  entry.name_bytes = static_cast<uint32_t>(name.size() + reason.size());
  note({.left_out = 1, .entry = entry}, name + reason);
  texts_.left_out.emplace_back(name, reason);
}

void PackedWriter::note(Record record, std::string_view text) {
  const auto plain = bytes_of(record);
  std::vector<uint8_t> bytes(plain.begin(), plain.end());
  bytes.insert(bytes.end(), text.begin(), text.end());
  record.hash = packed_hash(std::span(bytes).subspan(sizeof record.hash));
  std::memcpy(bytes.data(), &record.hash, sizeof record.hash);
  write(journal_, bytes, journal_end_);
  journal_end_ += static_cast<int64_t>(bytes.size());
  ++done_;
}

int64_t PackedWriter::commit() {
  const std::vector<uint8_t> index = write_packed_index(entries_, texts_, names_);
  header_.samples = entries_.size();
  header_.index_offset = static_cast<uint64_t>(aligned(end_));
  header_.index_bytes = index.size();
  header_.index_hash = packed_hash(index);
  seal(header_);
  write(file_, index, aligned(end_));
  write(file_, bytes_of(header_), 0);
  if (::fsync(file_.get()) != 0 || std::rename(partial_.c_str(), path_.c_str()) != 0) fail();
  const std::filesystem::path parent = std::filesystem::path(path_).parent_path();
  Descriptor folder(parent.empty() ? "." : parent.string(), O_RDONLY | O_DIRECTORY);
  // Some network file systems cannot sync a folder and say EINVAL; they order the rename themselves.
  if (folder.valid() && ::fsync(folder.get()) != 0 && errno != EINVAL) fail();
  ::unlink(journal_path_.c_str());
  return static_cast<int64_t>(header_.index_offset + header_.index_bytes);
}

void PackedWriter::discard() const {
  for (const std::string& path : {partial_, journal_path_}) ::unlink(path.c_str());
}

void PackedWriter::write(const Descriptor& file, std::span<const uint8_t> bytes, int64_t offset) const {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(file.get(), bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail();
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += n;
  }
}

void PackedWriter::fail() const {
  throw Error(fmt::format("cannot write {}: {}; what is done stays in {}, and the same command {}", path_,
                          errno_reason(), partial_, anew_ ? "begins anew" : "goes on from there"));
}

}  // namespace convolt
