// --config FILE.toml: flags from a file, and the file of flags that a run leaves behind.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "convolt/checkpoint.h"
#include "flag_set.h"
#include "io/config_file.h"

namespace convolt::cli {

void add_config(FlagSet& flags);
// --recipe NAME.
void add_recipe(FlagSet& flags);
// The recipe that `train --recipe NAME --dry-run` without a data set asks for.
std::optional<std::string_view> recipe_to_print(const std::vector<std::string>& words);

// The words of a command line (without the program's name) with the flags of its --config file and of its --recipe
// among them. A flag of the command line wins over the file's, and that over the recipe's; flags for other subcommands
// are passed over, and of a training's file its limit where another command reads it. Throws DataError for a file that
// cannot be read and UsageError for a key that is no flag.
std::vector<std::string> with_config(const CLI::App& program, const std::vector<std::string>& words);

// What flags, named without their dashes, turned out to mean.
using Resolved = std::map<std::string, std::vector<std::string>>;

// Every flag of a parsed command with its value: the one in `resolved`, else the given one, else the default; without
// those that say where a run leaves its results and what it prints.
std::vector<ConfigEntry> resolved_config(const FlagSet& flags, const Resolved& resolved);

// The same as a JSON object, with underscores in the keys.
nlohmann::ordered_json to_json(const std::vector<ConfigEntry>& config);

// That object again from a checkpoint; empty where there is none.
nlohmann::ordered_json configuration_of(const ModelCard& card);

// What a resumed training does otherwise than it began, as "--lr 0.5 (was 0.1)".
std::vector<std::string> changed_flags(const nlohmann::ordered_json& before, const nlohmann::ordered_json& now);

// Writes FOLDER/config.toml, and the folder where there is none. Throws Error.
void save_config(const std::string& folder, const std::vector<ConfigEntry>& config);

}  // namespace convolt::cli
