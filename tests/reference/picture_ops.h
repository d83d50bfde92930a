// The operations of kernels/picture_ops.h on one picture, in double and by brute force: written from that header's
// comments, not from the kernel.
#pragma once

#include <picture_ops.h>  // of kernels/; in quotes it would be this file

#include <array>
#include <cstdint>
#include <vector>

namespace convolt::test {

// `picture`: [height, width, channels], channels 1 or 3; fill in 0..1. `exact` becomes what the last step gave before
// it was cut off and rounded, so that float arithmetic close to a boundary can be told from a wrong result.
std::vector<uint8_t> run_programme(std::vector<uint8_t> picture, int height, int width, int channels,
                                   const PictureProgramme& programme, const std::array<double, 3>& fill,
                                   std::vector<double>* exact = nullptr);

bool rounds_down(PictureOp op);
// Whether `op` may have made `byte` of a value that is at most `slack` away from `exact`.
bool may_become(double exact, uint8_t byte, PictureOp op, double slack = 1e-3);

}  // namespace convolt::test
