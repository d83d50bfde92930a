// Channels of [rows, C] tensors joined, sliced, shuffled and weighted, in double. The gradients scatter.
#pragma once

#include <cstdint>
#include <vector>

namespace convolt::reference {

// parts[i] is [rows, channels[i]].
std::vector<double> concat(const std::vector<std::vector<double>>& parts, const std::vector<int64_t>& channels);
// Channels first .. first + count - 1 of x [rows, channels].
std::vector<double> slice_channels(const std::vector<double>& x, int64_t channels, int64_t first, int64_t count);
// dx, zero outside the slice.
std::vector<double> slice_channels_backward(const std::vector<double>& dy, int64_t channels, int64_t first,
                                            int64_t count);

// Channel g * (C / groups) + j goes to j * groups + g.
std::vector<double> channel_shuffle(const std::vector<double>& x, int64_t channels, int64_t groups);
std::vector<double> channel_shuffle_backward(const std::vector<double>& dy, int64_t channels, int64_t groups);

// y = a * b, with b [M, C] repeated: a is [M, pixels, C]. M is all there is for equal shapes (pixels 1), 1 for one
// factor per channel.
std::vector<double> mul(const std::vector<double>& a, const std::vector<double>& b, int64_t pixels, int64_t channels);
struct MulGradients {
  std::vector<double> da, db;
};
MulGradients mul_backward(const std::vector<double>& dy, const std::vector<double>& a, const std::vector<double>& b,
                          int64_t pixels, int64_t channels);

}  // namespace convolt::reference
