// Compiled with AVX-512: nothing of the standard library may be instantiated here, or the linker could keep that copy
// for everyone.
#include "conv/winograd_loops.h"

namespace convolt::winograd {
const Code kAvx512 = kCode;
}
