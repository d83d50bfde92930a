#include "convolt/shape.h"

#include "convolt/error.h"

namespace convolt {

Shape::Shape(std::initializer_list<int64_t> extents) {
  if (extents.size() > kMaxRank)
    throw ShapeError("a shape has at most 5 extents, found " + std::to_string(extents.size()));
  for (int64_t e : extents) {
    if (e < 0) throw ShapeError("an extent of a shape is negative: " + std::to_string(e));
    extents_[static_cast<size_t>(rank_++)] = e;
  }
}

int64_t Shape::elements() const {
  int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= (*this)[i];
  return n;
}

std::string Shape::to_string() const {
  std::string s = "[";
  for (int i = 0; i < rank_; ++i) s += (i ? ", " : "") + std::to_string((*this)[i]);
  return s + "]";
}

std::string Size2::to_string() const {
  return h == w ? std::to_string(h) : std::to_string(h) + "x" + std::to_string(w);
}

std::string Padding::to_string() const {
  if (top != bottom || left != right)
    return std::to_string(top) + "," + std::to_string(left) + "," + std::to_string(bottom) + "," +
           std::to_string(right);
  return Size2(top, left).to_string();
}

}  // namespace convolt
