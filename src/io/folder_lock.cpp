#include "io/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>

#include "convolt/error.h"

namespace convolt {

FolderLock::FolderLock(const std::string& folder) : folder_(folder, O_RDONLY | O_DIRECTORY) {
  if (folder_.valid() && ::flock(folder_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    throw Error("'" + folder + "': another training is writing into it; wait for its end, or name another folder");
}

}  // namespace convolt
