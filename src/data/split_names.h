// What the splits of a data set are called: folders, shards, and in lists.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "convolt/dataset.h"

namespace convolt {

// A to Z as a to z.
std::string lower_case(std::string_view text);

// In lower case; of several folders the first counts.
std::span<const std::string_view> split_names(Split split);
// The split that is called so, in any case; nothing for other names.
std::optional<Split> split_called(std::string_view name);
// The folder of a split among those of a folder, which are sorted bytewise. "Train" may be a class too, of trains: but
// for the plain names train, val, validation and test one is a split's only where has_folders(name) says that it holds
// folders.
std::optional<std::string> split_folder(const std::vector<std::string>& folders, Split split,
                                        const std::function<bool(const std::string&)>& has_folders);

}  // namespace convolt
