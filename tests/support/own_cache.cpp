// Nothing that a test program, or what it starts, keeps for later comes to the user's cache.
#include <cstdlib>

#include "support/temp_folder.h"

namespace convolt::test {
namespace {

struct OwnCache {
  OwnCache() { setenv("XDG_CACHE_HOME", folder.path().c_str(), 1); }
  TempFolder folder;
};
const OwnCache own_cache;

}  // namespace
}  // namespace convolt::test
