// One writer for a folder at a time.
#pragma once

#include <string>

#include "io/descriptor.h"

namespace convolt {

// Holds a folder until it goes, or its process does; leaves nothing in it. Where the file system knows no locks, there
// is none.
class FolderLock {
public:
  // Throws Error where another holds the folder. One that is not there cannot be held.
  explicit FolderLock(const std::string& folder);
  // False where the folder was not there.
  bool held() const { return folder_.valid(); }

private:
  Descriptor folder_;
};

}  // namespace convolt
