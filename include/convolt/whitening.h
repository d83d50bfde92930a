// A first convolution that whitens the pixels.
#pragma once

#include "convolt/augment.h"
#include "convolt/dataset.h"
#include "convolt/graph.h"
#include "convolt/params.h"

namespace convolt {

// Sets the weights of the convolution that reads the input, of k x k kernel and 2 k k C outputs, to v / sqrt(l + 5e-4)
// for each eigenvector v of the uncentred covariance of k x k patches of the normalised pictures, l its eigenvalue,
// ascending; then to their negatives (K. Jordan, arXiv 2404.00498, after T. Swinney's hlb-CIFAR10). Its bias stays. The
// patches are all those of `pictures` pictures, spread evenly over the data set; those that cannot be read are passed
// over. Synchronises. Throws UsageError where the network has no such convolution, DataError when no picture can be
// read.
void whiten(const Graph& graph, Params& params, const Dataset& data, const AugmentOptions& preprocessing,
            int64_t pictures);

}  // namespace convolt
