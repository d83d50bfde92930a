// Folders that are whole or not there.
#pragma once

#include <atomic>
#include <string>
#include <system_error>

#include "io/descriptor.h"

namespace convolt {

// Makes a folder beside `path` ("PATH.partial-PID-N") to write into, and renames it to `path` at commit(). Where there
// is an empty folder already, which may be a mount or a link, it lies in that ("PATH/.partial-PID-N"), and what is in
// it is moved up. Without commit() the destructor removes it again; only a killed process leaves one behind. A
// folder with nothing but that counts as empty, and it goes. Not thread-safe, but for its path().
class AtomicFolder {
public:
  // Throws UsageError where `path` is there and is no empty folder, and Error where nothing can be made.
  explicit AtomicFolder(const std::string& path);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  // Of the folder to write into.
  const std::string& path() const { return partial_; }
  void commit();

private:
  [[noreturn]] void fail(const std::error_code& why) const;

  std::string path_, partial_;
  Descriptor lock_;  // on what is written, which tells others that it is no leftover
  bool exists_ = false;
};

// Throws Error where the folder's maker is asked to end.
void check_interrupt(const std::atomic<int>* interrupt, const std::string& path);

}  // namespace convolt
