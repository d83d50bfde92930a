// What an image folder holds, as one block of memory that is the same on the disk: its folders, its files in the order
// of the samples, and how large their pictures are. folder_scan.h makes one and keeps it up to date.
//   IndexHeader, folders x IndexedFolder, files x IndexedFile, text_bytes of text
// All names lie in the text, each with a zero behind it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace convolt {

constexpr std::array<char, 8> kIndexMagic{'c', 'v', 't', 'i', 'n', 'd', 'e', 'x'};
constexpr uint32_t kIndexVersion = 1;

struct IndexHeader {
  std::array<char, 8> magic = kIndexMagic;
  uint32_t version = kIndexVersion;
  uint32_t reserved = 0;
  uint64_t folders = 0, files = 0, text_bytes = 0;
  uint64_t folders_hash = 0, files_hash = 0, text_hash = 0;
  uint64_t hash = 0;  // of all before
};

// Nothing that stat() says of a file: it is looked at anew each time.
constexpr int64_t kUnsettled = 0;

struct IndexedFolder {
  uint64_t name = 0;  // below the root: a class has no '/'
  int64_t changed = kUnsettled;
  uint32_t name_bytes = 0;
  uint32_t reserved = 0;
};

struct IndexedFile {
  uint64_t name = 0;             // below the folder of the class
  int64_t changed = kUnsettled;  // nanoseconds of its inode's change time (st_ctim)
  int64_t bytes = 0;
  uint32_t name_bytes = 0;
  int32_t label = 0;
  int32_t height = 0, width = 0;  // upright; 0 where it is no picture
};

// A listing; copies share it. Safe to use from any thread.
class FolderIndex {
public:
  // As a walk finds them.
  struct Parts {
    std::vector<IndexedFolder> folders;
    std::vector<IndexedFile> files;
    std::string text;
  };
  explicit FolderIndex(Parts parts);
  // Throws FormatError for what write() does not write. `bytes` outlive it and begin at a multiple of 8.
  static FolderIndex parse(std::span<const uint8_t> bytes, const std::string& path);
  // Maps the file. Throws DataError or FormatError.
  static FolderIndex read(const std::string& path);
  void write(const std::string& path) const;  // throws Error
  // The same with what has been found out of each file: then it is measured().
  FolderIndex with(std::vector<IndexedFile> files) const;
  bool measured() const { return measured_; }

  std::span<const IndexedFolder> folders() const { return folders_; }
  std::span<const IndexedFile> files() const { return files_; }
  // Zero-terminated.
  template <class T>
  std::string_view name(const T& of) const {
    return text_.substr(of.name, of.name_bytes);
  }
  // By index, which is the files' label.
  std::vector<std::string_view> classes() const;

private:
  FolderIndex() = default;
  void check(const std::string& path) const;

  std::span<const IndexedFolder> folders_;
  std::span<const IndexedFile> files_;
  std::string_view text_;
  std::shared_ptr<const void> owner_;  // of the memory
  bool measured_ = false;
};

// Sets the hashes of what stands behind the header in `bytes`, and its own.
void seal_index(std::span<uint8_t> bytes);

}  // namespace convolt
