#include "data/picture_index.h"

#include <algorithm>
#include <cstring>

#include "convolt/error.h"
#include "data/packed_format.h"
#include "data/picture_header.h"
#include "io/atomic_file.h"
#include "io/mapped_file.h"

namespace convolt {
namespace {

static_assert(sizeof(IndexHeader) == 88 && sizeof(IndexedFolder) == 24 && sizeof(IndexedFile) == 40 &&
              sizeof(IndexedMember) == 48);

using ByteSpan = std::span<const uint8_t>;
constexpr std::array<size_t, 4> kItemBytes{sizeof(IndexedFolder), sizeof(IndexedFile), sizeof(IndexedMember), 1};

struct Sections {
  IndexHeader header;
  std::array<ByteSpan, 4> parts;
};

// The parts of a file. False where the sizes do not fit.
bool divide(ByteSpan bytes, Sections& s) {
  if (bytes.size() < sizeof(IndexHeader)) return false;
  std::memcpy(&s.header, bytes.data(), sizeof s.header);
  ByteSpan rest = bytes.subspan(sizeof s.header);
  for (size_t k = 0; k < kItemBytes.size(); ++k) {
    if (s.header.items[k] > rest.size() / kItemBytes[k]) return false;
    s.parts[k] = rest.first(s.header.items[k] * kItemBytes[k]);
    rest = rest.subspan(s.parts[k].size());
  }
  return rest.empty();
}

void set_hashes(Sections& s) {
  std::transform(s.parts.begin(), s.parts.end(), s.header.hashes.begin(), packed_hash);
  s.header.hash = packed_hash(bytes_of(s.header).first(offsetof(IndexHeader, hash)));
}

bool hashes_fit(const Sections& s) {
  Sections expected = s;
  set_hashes(expected);
  return std::memcmp(&expected.header, &s.header, sizeof s.header) == 0;
}

template <class T>
std::span<const T> items(ByteSpan part) {
  return {reinterpret_cast<const T*>(part.data()), part.size() / sizeof(T)};
}

template <class T>
ByteSpan part_of(std::span<const T> items) {
  return {reinterpret_cast<const uint8_t*>(items.data()), items.size_bytes()};
}

bool are_sides(int32_t height, int32_t width) {
  const auto is_side = [](int32_t side) { return side >= 0 && side <= kMaxPictureSide; };
  return is_side(height) && is_side(width) && (height == 0) == (width == 0);
}

}  // namespace

PictureIndex::PictureIndex(Parts parts) {
  const auto kept = std::make_shared<const Parts>(std::move(parts));
  folders_ = kept->folders;
  files_ = kept->files;
  members_ = kept->members;
  text_ = kept->text;
  owner_ = kept;
}

PictureIndex PictureIndex::parse(ByteSpan bytes, const std::string& path) {
  Sections s;
  if (!divide(bytes, s) || s.header.magic != kIndexMagic || s.header.version != kIndexVersion || !hashes_fit(s))
    throw FormatError(path + ": is no index of this version that is whole");
  PictureIndex index;
  index.folders_ = items<IndexedFolder>(s.parts[0]);
  index.files_ = items<IndexedFile>(s.parts[1]);
  index.members_ = items<IndexedMember>(s.parts[2]);
  index.text_ = {reinterpret_cast<const char*>(s.parts[3].data()), s.parts[3].size()};
  index.check(path);
  index.measured_ = true;
  return index;
}

PictureIndex PictureIndex::read(const std::string& path) {
  const auto file = std::make_shared<const MappedFile>(path);
  PictureIndex index = parse(file->bytes(), path);
  index.owner_ = file;
  return index;
}

void PictureIndex::write(const std::string& path) const {
  Sections s{{}, {part_of(folders_), part_of(files_), part_of(members_), part_of(std::span(text_))}};
  for (size_t k = 0; k < kItemBytes.size(); ++k) s.header.items[k] = s.parts[k].size() / kItemBytes[k];
  set_hashes(s);
  AtomicFile file(path);
  file.write(std::as_bytes(bytes_of(s.header)));
  for (const ByteSpan part : s.parts) file.write(std::as_bytes(part));
  file.commit();
}

PictureIndex PictureIndex::with(std::vector<IndexedFile> files) const {
  const auto kept = std::make_shared<const std::pair<PictureIndex, std::vector<IndexedFile>>>(*this, std::move(files));
  PictureIndex index = *this;
  index.files_ = kept->second;
  index.owner_ = kept;
  index.measured_ = true;
  return index;
}

bool PictureIndex::same_as(const PictureIndex& other) const {
  const auto same = [](const auto& a, const auto& b) { return std::ranges::equal(part_of(a), part_of(b)); };
  return same(folders_, other.folders_) && same(files_, other.files_) && same(members_, other.members_) &&
         text_ == other.text_;
}

std::vector<std::string_view> PictureIndex::classes() const {
  std::vector<std::string_view> classes;
  for (const IndexedFolder& folder : folders_)
    if (const auto below = name(folder); below.find('/') == std::string_view::npos) classes.push_back(below);
  return classes;
}

template <class T>
bool PictureIndex::is_name(const T& of) const {
  return of.name < text_.size() && of.name_bytes > 0 && of.name_bytes < text_.size() - of.name &&
         text_[of.name + of.name_bytes] == '\0' && name(of).find('\0') == std::string_view::npos;
}

// All are in order, with a class and a size that a picture may have.
bool PictureIndex::files_make_sense() const {
  const auto count = static_cast<int64_t>(classes().size());
  const IndexedFile* last = nullptr;
  for (const IndexedFile& file : files_) {
    if (!is_name(file) || file.label < 0 || file.label >= count || file.bytes < 0 ||
        !are_sides(file.height, file.width))
      return false;
    if (last != nullptr && !(last->label < file.label || (last->label == file.label && name(*last) < name(file))))
      return false;
    last = &file;
  }
  return true;
}

bool PictureIndex::members_make_sense() const {
  constexpr int64_t kMost = INT64_MAX / 2;  // so that place and length can be added
  return std::ranges::all_of(members_, [&](const IndexedMember& m) {
    const bool unknown = m.height == -1 && m.width == -1;
    return is_name(m) && m.bytes >= 0 && m.bytes <= kMost && m.place >= 0 && m.place <= kMost &&
           (unknown || are_sides(m.height, m.width));
  });
}

void PictureIndex::check(const std::string& path) const {
  const bool named = std::ranges::all_of(folders_, [&](const IndexedFolder& folder) { return is_name(folder); });
  if (!named || !files_make_sense() || !members_make_sense())
    throw FormatError(path + ": is an index that makes no sense");
}

void seal_index(std::span<uint8_t> bytes) {
  Sections s;
  if (!divide(bytes, s)) return;
  set_hashes(s);
  std::memcpy(bytes.data(), &s.header, sizeof s.header);
}

}  // namespace convolt
