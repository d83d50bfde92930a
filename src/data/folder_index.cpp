#include "data/folder_index.h"

#include <cstring>

#include "convolt/error.h"
#include "data/packed_format.h"
#include "data/picture_header.h"
#include "io/atomic_file.h"
#include "io/mapped_file.h"

namespace convolt {
namespace {

static_assert(sizeof(IndexHeader) == 72 && sizeof(IndexedFolder) == 24 && sizeof(IndexedFile) == 40);

template <class T>
std::span<const uint8_t> as_bytes(std::span<const T> items) {
  return {reinterpret_cast<const uint8_t*>(items.data()), items.size_bytes()};
}

uint64_t hash_of(const IndexHeader& header) { return packed_hash(bytes_of(header).first(offsetof(IndexHeader, hash))); }

// The parts of a file, or none where the sizes do not fit.
struct Sections {
  IndexHeader header;
  std::span<const uint8_t> folders, files, text;
};
bool divide(std::span<const uint8_t> bytes, Sections& s) {
  if (bytes.size() < sizeof(IndexHeader)) return false;
  std::memcpy(&s.header, bytes.data(), sizeof s.header);
  auto rest = bytes.subspan(sizeof s.header);
  if (s.header.folders > rest.size() / sizeof(IndexedFolder)) return false;
  s.folders = rest.first(s.header.folders * sizeof(IndexedFolder));
  rest = rest.subspan(s.folders.size());
  if (s.header.files > rest.size() / sizeof(IndexedFile)) return false;
  s.files = rest.first(s.header.files * sizeof(IndexedFile));
  s.text = rest.subspan(s.files.size());
  return s.text.size() == s.header.text_bytes;
}

void set_hashes(Sections& s) {
  s.header.folders_hash = packed_hash(s.folders);
  s.header.files_hash = packed_hash(s.files);
  s.header.text_hash = packed_hash(s.text);
  s.header.hash = hash_of(s.header);
}

bool hashes_fit(const Sections& s) {
  Sections expected = s;
  set_hashes(expected);
  return std::memcmp(&expected.header, &s.header, sizeof s.header) == 0;
}

}  // namespace

FolderIndex::FolderIndex(Parts parts) {
  const auto kept = std::make_shared<const Parts>(std::move(parts));
  folders_ = kept->folders;
  files_ = kept->files;
  text_ = kept->text;
  owner_ = kept;
}

FolderIndex FolderIndex::parse(std::span<const uint8_t> bytes, const std::string& path) {
  Sections s;
  if (!divide(bytes, s) || s.header.magic != kIndexMagic || s.header.version != kIndexVersion || !hashes_fit(s))
    throw FormatError(path + ": is no index of this version that is whole");
  FolderIndex index;
  index.folders_ = {reinterpret_cast<const IndexedFolder*>(s.folders.data()), s.header.folders};
  index.files_ = {reinterpret_cast<const IndexedFile*>(s.files.data()), s.header.files};
  index.text_ = {reinterpret_cast<const char*>(s.text.data()), s.text.size()};
  index.check(path);
  index.measured_ = true;
  return index;
}

FolderIndex FolderIndex::read(const std::string& path) {
  const auto file = std::make_shared<const MappedFile>(path);
  FolderIndex index = parse(file->bytes(), path);
  index.owner_ = file;
  return index;
}

void FolderIndex::write(const std::string& path) const {
  Sections s{{}, as_bytes(folders_), as_bytes(files_), {reinterpret_cast<const uint8_t*>(text_.data()), text_.size()}};
  s.header.folders = folders_.size();
  s.header.files = files_.size();
  s.header.text_bytes = text_.size();
  set_hashes(s);
  AtomicFile file(path);
  for (const auto part : {bytes_of(s.header), s.folders, s.files, s.text}) file.write(std::as_bytes(part));
  file.commit();
}

FolderIndex FolderIndex::with(std::vector<IndexedFile> files) const {
  const auto kept = std::make_shared<const std::pair<FolderIndex, std::vector<IndexedFile>>>(*this, std::move(files));
  FolderIndex index = *this;
  index.files_ = kept->second;
  index.owner_ = kept;
  index.measured_ = true;
  return index;
}

std::vector<std::string_view> FolderIndex::classes() const {
  std::vector<std::string_view> classes;
  for (const IndexedFolder& folder : folders_)
    if (const auto below = name(folder); below.find('/') == std::string_view::npos) classes.push_back(below);
  return classes;
}

// That all names lie in the text and all files are in order, with a class and a size that a picture may have.
void FolderIndex::check(const std::string& path) const {
  const auto is_name = [&](const auto& of) {
    return of.name < text_.size() && of.name_bytes > 0 && of.name_bytes < text_.size() - of.name &&
           text_[of.name + of.name_bytes] == '\0' && name(of).find('\0') == std::string_view::npos;
  };
  const auto is_side = [](int32_t side) { return side >= 0 && side <= kMaxPictureSide; };
  bool good = true;
  for (const IndexedFolder& folder : folders_) good = good && is_name(folder);
  const auto count = good ? static_cast<int64_t>(classes().size()) : 0;
  const IndexedFile* last = nullptr;
  for (const IndexedFile& file : files_) {
    good = good && is_name(file) && file.label >= 0 && file.label < count && file.bytes >= 0 && is_side(file.height) &&
           is_side(file.width) && (file.height == 0) == (file.width == 0);
    if (!good) break;
    if (last != nullptr) good = last->label < file.label || (last->label == file.label && name(*last) < name(file));
    last = &file;
  }
  if (!good) throw FormatError(path + ": is an index that makes no sense");
}

void seal_index(std::span<uint8_t> bytes) {
  Sections s;
  if (!divide(bytes, s)) return;
  set_hashes(s);
  std::memcpy(bytes.data(), &s.header, sizeof s.header);
}

}  // namespace convolt
