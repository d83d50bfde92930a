#include "conv/winograd_loops.h"

namespace convolt::winograd {
const Code kAvx2 = kCode;
}
