// Archives as sources: what members there are, and their bytes without unpacking. Containers differ in how they are
// listed and read (tar.cpp, zip.cpp); what of them is a sample is said once (archive_layout.h), and so is which
// archives make up a split (archive_set.cpp).
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/sources.h"

namespace convolt {

struct ArchiveMember {
  // Others than files and folders cannot be read, which matters only where they would be a sample.
  enum class Kind : uint8_t { file, folder, link, sparse, encrypted, unknown_method };

  std::string name;   // as member_name() makes it
  int64_t bytes = 0;  // unpacked
  int64_t place = 0;  // where its bytes begin in a tar; its number in a zip
  Kind kind = Kind::file;
  int32_t label = -1;               // the class that a .cls or .json file names; -1 for none
  int32_t height = -1, width = -1;  // of an upright picture; 0 where it is none, -1 where nobody has looked
};

constexpr int32_t kMostClasses = 1'000'000;  // that WebDataset may number

// The components of a member's path joined by '/', without leading '/' and "./"; empty for what counts as hidden: any
// component that begins with a dot (so ".." too), and the folder __MACOSX of zips.
std::string member_name(std::string_view path);

// .cls and .json files of WebDataset are read while an archive is listed, if they are small: `label_file` says which,
// `label_in` gives the class number or -1.
bool label_file(std::string_view member, int64_t bytes);
int32_t label_in(std::string_view member, std::string_view text);

// One open archive. Const methods may be called by any thread.
class Archive {
public:
  virtual ~Archive() = default;

  const std::filesystem::path& path() const { return path_; }
  const std::vector<ArchiveMember>& members() const { return members_; }
  void set_extent(uint32_t member, const PictureExtent& extent) {
    members_[member].height = extent.height;
    members_[member].width = extent.width;
  }
  // For messages: "set.tar/train/a/1.jpg", below the path of the archive.
  std::string name_of(const ArchiveMember& member) const { return (path_ / member.name).string(); }

  // Called once, before the first read: unpacks what cannot be read at random. Throws DataError.
  virtual void prepare() {}
  // All bytes of a file, and those from `offset` as far as it goes. Throw DataError with name_of().
  virtual std::vector<uint8_t> read(const ArchiveMember& member) const = 0;
  virtual size_t read_part(const ArchiveMember& member, int64_t offset, std::span<uint8_t> into) const = 0;

protected:
  explicit Archive(std::filesystem::path path) : path_(std::move(path)) {}
  std::vector<ArchiveMember> members_;

private:
  std::filesystem::path path_;
};

// What an archive has is known from an earlier start, or listed now.
using KnownMembers = std::optional<std::vector<ArchiveMember>>;

// A kind of container.
struct Container {
  std::string_view name;                 // "tar"
  bool at_once;                          // several may be opened by several threads
  bool (*named)(std::string_view file);  // by the end of a file's name
  // Throws DataError or FormatError.
  std::unique_ptr<Archive> (*open)(const std::filesystem::path&, KnownMembers known);
};
extern const Container kTar, kZip;

// A tar unpacked into a temporary file without a name, in TMPDIR. Throws DataError when it would grow beyond `limit`
// bytes, or when it cannot be written.
InputFile unpack_tar(const std::filesystem::path& path, int64_t limit);

}  // namespace convolt
