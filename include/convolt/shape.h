// The extents of a tensor, outermost first. Activations are [N, H, W, C] (NHWC); convolution weights [O, H, W, I] in
// memory.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace convolt {

class Shape {
public:
  static constexpr int kMaxRank = 5;

  Shape() = default;
  // Throws ShapeError for more than kMaxRank extents or a negative one.
  Shape(std::initializer_list<int64_t> extents);

  int rank() const { return rank_; }
  // i counts from the front, or from the back when negative: [-1] is the innermost extent.
  int64_t operator[](int i) const { return extents_[static_cast<size_t>(i < 0 ? rank_ + i : i)]; }
  void set(int i, int64_t extent) { extents_[static_cast<size_t>(i < 0 ? rank_ + i : i)] = extent; }
  // Product of the extents; 1 for rank 0.
  int64_t elements() const;
  // "[2, 32, 32, 3]".
  std::string to_string() const;

  friend bool operator==(const Shape&, const Shape&) = default;

private:
  std::array<int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

}  // namespace convolt
