// The extents of a tensor, outermost first. Activations are [N, H, W, C] (NHWC); convolution weights [O, H, W, I] in
// memory.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#if __cplusplus < 202002L
#error "Convolt's headers are C++20: compile with -std=c++20"
#endif

namespace convolt {

// Up to kMaxRank extents.
class Shape {
public:
  static constexpr int kMaxRank = 5;  // the most extents

  Shape() = default;
  // Throws ShapeError for more than kMaxRank extents or a negative one.
  Shape(std::initializer_list<int64_t> extents);

  // The number of extents.
  int rank() const { return rank_; }
  // i counts from the front, or from the back when negative: [-1] is the innermost extent.
  int64_t operator[](int i) const { return extents_[static_cast<size_t>(i < 0 ? rank_ + i : i)]; }
  void set(int i, int64_t extent) { extents_[static_cast<size_t>(i < 0 ? rank_ + i : i)] = extent; }
  // Product of the extents; 1 for rank 0.
  int64_t elements() const;
  // "[2, 32, 32, 3]".
  std::string to_string() const;

  // Equal ranks and extents.
  friend bool operator==(const Shape&, const Shape&) = default;

private:
  std::array<int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

// A height and a width; one number is both.
struct Size2 {
  int h = 1, w = 1;  // height, width
  // Ones; one number for both; height, then width.
  constexpr Size2() = default;
  constexpr Size2(int both) : h(both), w(both) {}
  constexpr Size2(int height, int width) : h(height), w(width) {}
  std::string to_string() const;  // "3" or "1x7"
  // Equal heights and widths.
  friend bool operator==(const Size2&, const Size2&) = default;
};

// Pixels added around a picture. One number: on all sides; two: above and below, left and right.
struct Padding {
  int top = 0, left = 0, bottom = 0, right = 0;  // rows and columns
  // None; on all sides; above and below, left and right; each side by itself.
  constexpr Padding() = default;
  constexpr Padding(int all) : top(all), left(all), bottom(all), right(all) {}
  constexpr Padding(int vertical, int horizontal)
      : top(vertical), left(horizontal), bottom(vertical), right(horizontal) {}
  constexpr Padding(int t, int l, int b, int r) : top(t), left(l), bottom(b), right(r) {}
  // Above and below together; left and right together.
  constexpr int vertical() const { return top + bottom; }
  constexpr int horizontal() const { return left + right; }
  std::string to_string() const;  // "1", "0x2" or "0,1,0,1" (top, left, bottom, right)
  // Equal on all sides.
  friend bool operator==(const Padding&, const Padding&) = default;
};

}  // namespace convolt
