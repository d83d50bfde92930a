// What the attributes of a layer are called and where they lie. One list serves reading and writing of networks as
// files (docs/network-format.md); it knows nothing of the format.
#pragma once

#include <any>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "convolt/graph.h"

namespace convolt {

// An enumeration of type uint8_t; its values count from 0 and are named in that order.
struct EnumAttribute {
  uint8_t* value;
  std::span<const std::string_view> names;
};

template <class Enum>
EnumAttribute enum_attribute(Enum& value, std::span<const std::string_view> names) {
  static_assert(sizeof(Enum) == 1);
  return {reinterpret_cast<uint8_t*>(&value), names};
}

struct Attribute {
  std::string_view name;
  // int64_t: a number of channels or features, which a file may give as "classes".
  std::variant<bool*, int*, int64_t*, float*, std::string*, Size2*, Padding*, Init*, std::array<float, 3>*,
               std::vector<int64_t>*, EnumAttribute>
      value;
};
using Attributes = std::vector<Attribute>;

// The T in `any`, made anew where there is none yet: what LayerDef::attributes begins with.
template <class T>
T& attributes_as(std::any& any) {
  if (!any.has_value()) any = T{};
  return std::any_cast<T&>(any);
}

}  // namespace convolt
