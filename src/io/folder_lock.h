// One writer for a folder at a time.
#pragma once

#include <string>

#include "io/descriptor.h"

namespace convolt {

// Holds a folder until it goes, or its process does; leaves nothing in it. Where the file system knows no locks, none
// is held.
class FolderLock {
public:
  // Throws Error where another holds the folder. One that is not there is not held.
  explicit FolderLock(const std::string& folder);
  bool held() const { return folder_.valid(); }

private:
  Descriptor folder_;
};

}  // namespace convolt
