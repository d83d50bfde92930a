// Many names in one block of memory.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace convolt {

// The names in the order in which they were added; a name takes 8 bytes more than its own.
class NameList {
public:
  void add(std::string_view name) {
    text_ += name;
    ends_.push_back(text_.size());
  }
  size_t size() const { return ends_.size(); }
  // Valid until the next add().
  std::string_view operator[](size_t i) const {
    const uint64_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(text_).substr(begin, ends_[i] - begin);
  }

private:
  std::string text_;
  std::vector<uint64_t> ends_;
};

}  // namespace convolt
