#include "io/folder_lock.h"

#include <fcntl.h>

#include "convolt/error.h"

namespace convolt {

FolderLock::FolderLock(const std::string& folder) : folder_(folder, O_RDONLY | O_DIRECTORY) {
  if (folder_.valid() && !folder_.lock())
    throw Error("'" + folder + "': another training is writing into it; wait for its end, or name another folder");
}

}  // namespace convolt
