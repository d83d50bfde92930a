#include "recipes.h"

#include <fmt/format.h>

#include "convolt/error.h"

namespace convolt::cli {

std::string_view find_recipe(const std::string& name) {
  for (const auto& [known, text] : recipes())
    if (known == name) return text;
  throw UsageError(fmt::format("--recipe '{}' is not known; expected {}", name, recipe_names()));
}

std::string recipe_names() {
  std::string names;
  for (size_t i = 0; i < recipes().size(); ++i)
    names += fmt::format("{}{}", i == 0 ? "" : i + 1 == recipes().size() ? " or " : ", ", recipes()[i].first);
  return names;
}

}  // namespace convolt::cli
