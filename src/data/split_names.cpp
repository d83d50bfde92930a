#include "data/split_names.h"

#include <algorithm>
#include <array>

namespace convolt {
namespace {

constexpr std::array<std::string_view, 2> kTrainingNames{"train", "training"};
constexpr std::array<std::string_view, 4> kValidationNames{"val", "validation", "valid", "test"};

// Those that cannot be classes, with or without folders in them.
bool is_plain(std::string_view folder) {
  return folder == "train" || folder == "val" || folder == "validation" || folder == "test";
}

}  // namespace

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

std::span<const std::string_view> split_names(Split split) {
  if (split == Split::train) return kTrainingNames;
  return kValidationNames;
}

std::optional<Split> split_called(std::string_view name) {
  const std::string lower = lower_case(name);
  for (const Split split : {Split::train, Split::validation})
    if (std::ranges::find(split_names(split), lower) != split_names(split).end()) return split;
  return std::nullopt;
}

std::optional<std::string> split_folder(const std::vector<std::string>& folders, Split split,
                                        const std::function<bool(const std::string&)>& has_folders) {
  for (const std::string_view name : split_names(split)) {
    // From the end, where "train" is, behind "Train".
    const auto found = std::find_if(folders.rbegin(), folders.rend(), [&](const std::string& folder) {
      return lower_case(folder) == name && (is_plain(folder) || has_folders(folder));
    });
    if (found != folders.rend()) return *found;
  }
  return std::nullopt;
}

}  // namespace convolt
