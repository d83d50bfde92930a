#include "exec/block.h"

namespace convolt {
bool phases_backwards = false;
int64_t past_caches_from = -1;
}  // namespace convolt
