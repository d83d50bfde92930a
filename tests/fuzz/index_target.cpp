#include "fuzz/index_target.h"

#include <string>

#include "convolt/error.h"
#include "data/archive_index.h"
#include "fuzz/demand.h"
#include "support/temp_folder.h"

namespace convolt::test {
namespace {

// Not an assertion, which gtest would only count.
std::vector<uint8_t> written(PictureIndex::Parts parts) {
  const TempFolder folder;
  PictureIndex(std::move(parts)).write(folder.path("index"));
  const std::string text = contents(folder.path("index"));
  return {text.begin(), text.end()};
}

PictureIndex::Parts image_folder() {
  PictureIndex::Parts parts;
  for (const char* name : {"a", "a/b", "c"}) parts.set_name(parts.folders.emplace_back(), name);
  parts.files = {{.changed = 8, .bytes = 9, .height = 2, .width = 3}, {.changed = 8, .bytes = 9, .label = 1}};
  parts.set_name(parts.files[0], "b/x.jpg");
  parts.set_name(parts.files[1], "1.png");
  return parts;
}

PictureIndex::Parts archive() {
  PictureIndex::Parts parts;
  parts.set_name(parts.folders.emplace_back(), ".");
  parts.set_name(parts.files.emplace_back(), "set.tar");
  parts.members = {{.place = 512, .bytes = 9, .height = 2, .width = 3}, {.bytes = 2, .label = 7}, {.kind = 1}};
  for (size_t i = 0; i < parts.members.size(); ++i) parts.set_name(parts.members[i], "a/" + std::to_string(i));
  return parts;
}

void look_at(const PictureIndex& index) {
  const auto classes = index.classes();
  for (const IndexedFile& f : index.files())
    demand(static_cast<size_t>(f.label) < classes.size() && index.name(f).size() == f.name_bytes &&
           index.name(f).data()[f.name_bytes] == 0 && (f.height > 0) == (f.width > 0));
  for (const IndexedFolder& f : index.folders()) demand(index.name(f).data()[f.name_bytes] == 0);
  for (const ArchiveMember& m : members_of(index, "fuzz"))
    demand(!m.name.empty() && m.bytes >= 0 && m.place >= 0 && m.place + m.bytes >= 0 && m.label < kMostClasses &&
           m.kind <= ArchiveMember::Kind::unknown_method && (m.height > 0) == (m.width > 0));
}

}  // namespace

std::vector<std::vector<uint8_t>> index_seeds() { return {written(image_folder()), written(archive())}; }

// The hashes would refuse all that is not a seed, so they are made to fit.
void read_index(std::span<const uint8_t> bytes) {
  std::vector<uint8_t> sealed(bytes.begin(), bytes.end());
  seal_index(sealed);
  for (const std::span<const uint8_t> file : {bytes, std::span<const uint8_t>(sealed)}) {
    try {
      look_at(PictureIndex::parse(file, "fuzz"));
    } catch (const FormatError&) {
    }
  }
}

}  // namespace convolt::test
