// One file of a packed set while it grows.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/packed_format.h"
#include "io/descriptor.h"

namespace convolt {

// Writes PATH.partial, beside the file where PATH is a link, and PATH.partial-journal, which lists what of it is whole:
// a killed writer's successor goes on from there. Not thread-safe; a second writer of the same path is refused. Throws
// Error with path and reason.
class PackedWriter {
public:
  // `header` has shard, shards and set id; `texts` all but what is left out. A partial file that lies there is
  // dropped where `anew`. Else throws UsageError where it is of another set id, and where `path` is there.
  PackedWriter(const std::string& path, const PackedHeader& header, PackedTexts texts, bool anew);

  // Samples, stored or left out, that are done already.
  int64_t done() const { return done_; }
  int64_t stored() const { return static_cast<int64_t>(entries_.size()); }
  // Appends a sample; the writer fills in the entry's offset, size, hash and name.
  void add(PackedEntry entry, std::span<const uint8_t> sample, std::string_view name);
  // Notes that the next sample is not in the set, and why.
  void leave_out(const std::string& name, const std::string& reason);
  // Writes index and header, brings all to the disk and renames; the journal goes. Returns the file's bytes.
  int64_t commit();
  // Instead of commit(): leaves nothing to go on from.
  void discard() const;

private:
  // What the journal has before a text of entry.name_bytes: the name, or the name of what is left out and the reason.
  struct Record {
    uint64_t hash = 0;      // of the rest and the text
    uint64_t left_out = 0;  // 1 where it is, then entry.name bytes of the text are the name
    PackedEntry entry;
  };

  void resume();
  bool take_up(const Record& record, std::string_view text);
  void note(Record record, std::string_view text);
  void write(const Descriptor& file, std::span<const uint8_t> bytes, int64_t offset) const;
  [[noreturn]] void fail() const;  // with errno's reason

  std::string path_, partial_, journal_path_;
  bool anew_;
  PackedHeader header_;
  PackedTexts texts_;
  std::vector<PackedEntry> entries_;
  std::string names_;
  int64_t end_ = sizeof(PackedHeader);  // of the samples
  int64_t journal_end_ = 0;
  int64_t done_ = 0;
  Descriptor file_, journal_;
};

}  // namespace convolt
