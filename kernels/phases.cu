#include "exec/block.h"

namespace convolt {
bool phases_backwards = false;
}
