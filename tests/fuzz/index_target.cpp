#include "fuzz/index_target.h"

#include <cstdlib>
#include <string>

#include "convolt/error.h"
#include "data/folder_index.h"
#include "support/temp_folder.h"

namespace convolt::test {
namespace {

// Not an assertion, which gtest would only count.
void demand(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

std::vector<std::vector<uint8_t>> index_seeds() {
  const TempFolder folder;
  FolderIndex::Parts parts;
  const auto name = [&](const std::string& text) {
    const uint64_t at = parts.text.size();
    parts.text += text + '\0';
    return at;
  };
  parts.folders = {{.name = name("a"), .changed = 5, .name_bytes = 1},
                   {.name = name("a/b"), .changed = 6, .name_bytes = 3},
                   {.name = name("c"), .changed = 7, .name_bytes = 1}};
  parts.files = {{.name = name("b/x.jpg"), .changed = 8, .bytes = 9, .name_bytes = 7, .height = 2, .width = 3},
                 {.name = name("1.png"), .changed = 8, .bytes = 9, .name_bytes = 5, .label = 1}};
  FolderIndex(std::move(parts)).write(folder.path("index"));
  const std::string text = contents(folder.path("index"));
  return {{text.begin(), text.end()}};
}

// The hashes would refuse all that is not a seed, so they are made to fit.
void read_index(std::span<const uint8_t> bytes) {
  std::vector<uint8_t> sealed(bytes.begin(), bytes.end());
  seal_index(sealed);
  for (const std::span<const uint8_t> file : {bytes, std::span<const uint8_t>(sealed)}) {
    try {
      const FolderIndex index = FolderIndex::parse(file, "fuzz");
      const auto classes = index.classes();
      for (const IndexedFile& f : index.files())
        demand(static_cast<size_t>(f.label) < classes.size() && index.name(f).size() == f.name_bytes &&
               index.name(f).data()[f.name_bytes] == 0 && (f.height > 0) == (f.width > 0));
      for (const IndexedFolder& f : index.folders()) demand(index.name(f).data()[f.name_bytes] == 0);
    } catch (const FormatError&) {
    }
  }
}

}  // namespace convolt::test
