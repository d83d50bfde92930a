// Small networks, one for each family and one of everything else, and batches for them.
#pragma once

#include <string>
#include <vector>

#include "convolt/graph.h"
#include "convolt/plan.h"
#include "reference/interpreter.h"
#include "step_state.h"
#include "support/device.h"

namespace convolt::test {

struct Network {
  std::string name;
  void (*build)(Graph& graph);
};
// lenet; resnet (stem, max pool, projection, bottleneck); cifar (slice_pad); mobilenet (depthwise, relu6, dropout);
// mixed (biases, dilation, groups, padded average pool, dropout of pictures, add(x, x), a shortcut around a batch norm,
// batch norm of vectors, flatten); activations (every one of them); excited (squeeze-and-excitation, adaptive pool,
// layer scale, stochastic depth); shuffled (split, slices, shuffle, concat); normed (layer and group norms, linear
// layers on pixels); dropped (residual blocks under stochastic depth); pooled (every option of the pools); enlarged (pad, transposed convolutions, upsample, frozen batch
// norms).
const std::vector<Network>& networks();
// The one of that name.
const Network& network(const std::string& name);

// Everything on, everything off, and each pass alone off.
struct PassSet {
  std::string name;
  Passes passes;
};
std::vector<PassSet> pass_sets();

// Values other than the initial ones everywhere: scales, biases and running statistics too.
void randomise(Params& params, uint64_t seed, double largest_scale = 1.5);
// All parameters, file layout.
std::vector<reference::Values> values_of(const Params& params);

// Pictures, labels and weights of a batch, on the host; the last row of a batch above 2 has weight 0.
reference::NetworkInput random_input(const Graph& graph, int batch, uint64_t seed, int height = 0, int width = 0);

// The same in device memory, as a loader leaves it. Waits at its end for the steps that read it.
class DeviceBatch {
public:
  DeviceBatch(Context& context, const Graph& graph, const reference::NetworkInput& input);
  ~DeviceBatch();
  DeviceBatch(const DeviceBatch&) = delete;
  DeviceBatch& operator=(const DeviceBatch&) = delete;
  StepInput step_input(int64_t step, float learning_rate = 0) const;

private:
  Context& context_;
  reference::NetworkInput input_;
  DeviceTensor images_, labels_, weights_;
};

// Euclidean.
double norm(const std::vector<double>& v);
// ||found - expected|| / (||expected|| + floor).
double relative_error(const std::vector<double>& found, const std::vector<double>& expected, double floor = 1e-30);
std::vector<double> doubles(const std::vector<float>& values);

}  // namespace convolt::test
