// What is known of the pictures of a data set, as one block of memory that is the same on the disk. Of an image folder:
// its folders, its files in the order of the samples, and how large their pictures are (folder_scan.h). A list has its
// files in one folder "."; so has an archive itself, and its members besides (archive_index.h).
//   IndexHeader, folders x IndexedFolder, files x IndexedFile, members x IndexedMember, text
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
constexpr uint32_t kIndexVersion = 3;

struct IndexHeader {
  std::array<char, 8> magic = kIndexMagic;
  uint32_t version = kIndexVersion;
  uint32_t reserved = 0;
  std::array<uint64_t, 4> items{};  // folders, files, members, bytes of text
  std::array<uint64_t, 4> hashes{};
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

// An ArchiveMember (archive.h), in the order of the archive.
struct IndexedMember {
  uint64_t name = 0;
  int64_t place = 0, bytes = 0;
  uint32_t name_bytes = 0;
  int32_t label = -1;
  int32_t height = -1, width = -1;  // upright; 0 where it is no picture, -1 where nobody has looked
  uint32_t kind = 0;
  uint32_t reserved = 0;
};

// Copies share what they hold. Safe to use from any thread.
class PictureIndex {
public:
  // As they are found.
  struct Parts {
    std::vector<IndexedFolder> folders;
    std::vector<IndexedFile> files;
    std::vector<IndexedMember> members;
    std::string text;

    // Puts the name of `to` into the text.
    template <class T>
    void set_name(T& to, std::string_view name) {
      to.name = text.size();
      to.name_bytes = static_cast<uint32_t>(name.size());
      text.append(name).push_back('\0');
    }
  };
  explicit PictureIndex(Parts parts);
  // Throws FormatError for what write() does not write. `bytes` outlive it and begin at a multiple of 8.
  static PictureIndex parse(std::span<const uint8_t> bytes, const std::string& path);
  // Maps the file. Throws DataError or FormatError.
  static PictureIndex read(const std::string& path);
  void write(const std::string& path) const;  // throws Error
  // The same with what has been found out of each file: then it is measured().
  PictureIndex with(std::vector<IndexedFile> files) const;
  bool measured() const { return measured_; }
  // Whether write() would write the same.
  bool same_as(const PictureIndex& other) const;

  std::span<const IndexedFolder> folders() const { return folders_; }
  std::span<const IndexedFile> files() const { return files_; }
  std::span<const IndexedMember> members() const { return members_; }
  // Zero-terminated.
  template <class T>
  std::string_view name(const T& of) const {
    return text_.substr(of.name, of.name_bytes);
  }
  // By index, which is the files' label.
  std::vector<std::string_view> classes() const;

private:
  PictureIndex() = default;
  void check(const std::string& path) const;
  template <class T>
  bool is_name(const T& of) const;
  bool files_make_sense() const;
  bool members_make_sense() const;

  std::span<const IndexedFolder> folders_;
  std::span<const IndexedFile> files_;
  std::span<const IndexedMember> members_;
  std::string_view text_;
  std::shared_ptr<const void> owner_;  // of the memory
  bool measured_ = false;
};

// Sets the hashes of what stands behind the header in `bytes`, and its own.
void seal_index(std::span<uint8_t> bytes);

}  // namespace convolt
