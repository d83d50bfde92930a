#include "config.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "convolt/error.h"
#include "io/atomic_file.h"
#include "io/names.h"
#include "json_text.h"
#include "optimizer_flags.h"
#include "recipes.h"

namespace convolt::cli {
namespace {

// "--batch-size" of the key batch-size or batch_size.
std::string flag_of(std::string key) {
  std::replace(key.begin(), key.end(), '_', '-');
  return "--" + key;
}

const CLI::Option* find_flag(const CLI::App& command, const std::string& key) {
  return command.get_option_no_throw(flag_of(key));
}

bool is_switch(const CLI::Option& option) { return option.get_items_expected_max() == 0; }

// Whether a word of the command line names this option: --batch-size, --batch-size=64, -b or -b64.
bool names(const CLI::Option& option, const std::string& word) {
  if (word.starts_with("--")) {
    const auto& long_names = option.get_lnames();
    return std::find(long_names.begin(), long_names.end(), word.substr(2, word.find('=') - 2)) != long_names.end();
  }
  return word.size() > 1 && word[0] == '-' &&
         std::any_of(option.get_snames().begin(), option.get_snames().end(),
                     [&](const std::string& name) { return word.compare(1, name.size(), name) == 0; });
}

// Where `flag` stands among the words of a command, or words.size(); `value` becomes what follows it.
size_t find_value(const std::vector<std::string>& words, const std::string& flag, std::string& value) {
  for (size_t i = 1; i < words.size() && words[i] != "--"; ++i) {
    if (words[i].starts_with(flag + "=")) {
      value = words[i].substr(flag.size() + 1);
      return i;
    }
    if (words[i] == flag && i + 1 < words.size()) {
      value = words[i + 1];
      return i;
    }
  }
  return words.size();
}

std::string text_of(const std::string& path) {
  constexpr int64_t kLargest = 1 << 20;
  const std::vector<uint8_t> bytes = read_file(path, kLargest);
  return {bytes.begin(), bytes.end()};
}

class Reader {
public:
  Reader(const CLI::App& program, const CLI::App& command, std::string path)
      : program_(program), command_(command), path_(std::move(path)) {}

  // The words of the text for what `given` does not name.
  std::vector<std::string> words(std::string_view text, const std::vector<std::string>& given) {
    std::vector<std::string> found;
    const std::vector<ConfigEntry> entries = parse_config(text, path_);
    // What a training took a part of is not what others look at.
    const bool of_training =
        command_.get_name() != "train" &&
        std::ranges::any_of(entries, [](const ConfigEntry& entry) { return entry.key == "epochs"; });
    for (const ConfigEntry& entry : entries) {
      if (of_training && (entry.key == "limit" || entry.key == "fraction")) continue;
      const CLI::Option* option = option_of(entry);
      if (option == nullptr) continue;
      if (names_network(given) &&
          (entry.key == "model" || entry.key == "weights" || flag_of(entry.key) == "--num-classes"))
        continue;
      if (!is_given(*option, given) && !is_overridden(*option, given)) append(found, *option, entry);
    }
    return found;
  }

private:
  static bool is_given(const CLI::Option& option, const std::vector<std::string>& given) {
    return std::ranges::any_of(given, [&](const std::string& word) { return names(option, word); });
  }

  // Belongs to another choice than the one that was given.
  bool is_overridden(const CLI::Option& option, const std::vector<std::string>& given) const {
    for (const CLI::Option* other : option.get_excludes())
      if (is_given(*other, given)) return true;
    for (const char* selector : {"--opt", "--lr-scheduler"}) {
      const CLI::Option* choice = command_.get_option_no_throw(selector);
      std::string kind;
      if (choice == nullptr) continue;
      for (const std::string& name : choice->get_lnames()) find_value(given, "--" + name, kind);
      if (!kind.empty() && !is_read("--" + option.get_lnames()[0], selector, kind)) return true;
    }
    return false;
  }

  // A checkpoint names network, weights and classes itself, whatever the training said that the file is of.
  bool names_network(const std::vector<std::string>& given) const {
    const CLI::Option* checkpoint = find_flag(command_, "checkpoint");
    return checkpoint != nullptr && is_given(*checkpoint, given);
  }

  [[noreturn]] void refuse(const ConfigEntry& entry, const std::string& what) const {
    throw UsageError(fmt::format("{}:{}: {}", path_, entry.line, what));
  }

  // Null for a flag of other subcommands.
  const CLI::Option* option_of(const ConfigEntry& entry) {
    const CLI::Option* option = find_flag(command_, entry.key);
    if (option == nullptr) {
      // "epoch" of augment in place of "epochs" of train is a slip all the same.
      const bool lacks_s = find_flag(command_, entry.key + "s") != nullptr;
      for (const CLI::App* other : program_.get_subcommands([](const CLI::App*) { return true; }))
        if (!lacks_s && find_flag(*other, entry.key) != nullptr) return nullptr;
      std::vector<std::string> known;
      for (const CLI::Option* o : command_.get_options())
        known.insert(known.end(), o->get_lnames().begin(), o->get_lnames().end());
      const std::string near = nearest_name(entry.key, known);
      refuse(entry, fmt::format("unknown flag '{}'{}", entry.key,
                                near.empty() ? "" : fmt::format(", did you mean '{}'?", near)));
    }
    if (option == command_.get_help_ptr() || names(*option, "--config") || names(*option, "--recipe") ||
        names(*option, "--dry-run"))
      refuse(entry, fmt::format("'{}' belongs on the command line", entry.key));
    if (!seen_.insert(option).second) refuse(entry, fmt::format("'{}' is given twice", entry.key));
    return option;
  }

  void append(std::vector<std::string>& words, const CLI::Option& option, const ConfigEntry& entry) const {
    const std::string flag = flag_of(entry.key) + "=";
    if (is_switch(option)) {
      if (entry.array || (entry.values[0] != "true" && entry.values[0] != "false"))
        refuse(entry, fmt::format("'{}' is true or false", entry.key));
      words.push_back(flag + entry.values[0]);
    } else if (option.get_delimiter() != '\0') {
      words.push_back(flag + fmt::format("{}", fmt::join(entry.values, std::string(1, option.get_delimiter()))));
    } else {
      for (const std::string& value : entry.values) words.push_back(flag + value);
    }
  }

  const CLI::App& program_;
  const CLI::App& command_;
  std::string path_;
  std::set<const CLI::Option*> seen_;
};

// Flags that change nothing about what is computed.
bool is_about_output(const std::string& name) {
  static const std::set<std::string> names{"config", "recipe", "dry-run",   "help",      "output-dir", "resume",
                                           "json",   "quiet",  "overwrite", "log-every", "profile"};
  return names.count(name) > 0;
}

bool has_what_it_needs(const CLI::Option& option) {
  const auto& needs = option.get_needs();
  return std::all_of(needs.begin(), needs.end(), [](const CLI::Option* o) { return o->count() > 0; });
}

}  // namespace

void add_config(FlagSet& flags) {
  flags.group("Configuration");
  flags.option("--config", "a TOML file of flags without their dashes, as lr = 0.1; flags given here win");
}

void add_recipe(FlagSet& flags) {
  flags.option("--recipe", "flags of a published training or a usual augmentation: " + recipe_names() +
                               "; those of --config and those given here win");
}

std::optional<std::string_view> recipe_to_print(const std::vector<std::string>& words) {
  const auto has = [&](const char* word) { return std::find(words.begin(), words.end(), word) != words.end(); };
  std::string value;
  if (words.empty() || words[0] != "train" || !has("--dry-run")) return std::nullopt;
  for (const char* path : {"--data-path", "--data-dir", "--config"})
    if (find_value(words, path, value) < words.size()) return std::nullopt;
  if (find_value(words, "--recipe", value) == words.size()) return std::nullopt;
  return find_recipe(value);
}

std::vector<std::string> with_config(const CLI::App& program, const std::vector<std::string>& words) {
  const auto called = [&](const CLI::App* app) { return !words.empty() && app->check_name(words[0]); };
  const std::vector<const CLI::App*> commands = program.get_subcommands(called);
  if (commands.empty()) return words;
  std::vector<std::string> all = words;
  // A file's flags come before a recipe's, which then are given.
  for (const char* flag : {"--config", "--recipe"}) {
    std::string value;
    const size_t at = find_value(all, flag, value);
    if (at == all.size()) continue;
    const bool is_file = flag == std::string_view("--config");
    const std::string text = is_file ? text_of(value) : std::string(find_recipe(value));
    const std::string name = is_file ? value : "recipe " + value;
    const std::vector<std::string> found = Reader(program, *commands[0], name).words(text, all);
    all.insert(all.begin() + static_cast<ptrdiff_t>(at), found.begin(), found.end());
  }
  return all;
}

std::vector<ConfigEntry> resolved_config(const FlagSet& flags, const Resolved& resolved) {
  std::vector<ConfigEntry> config;
  for (const CLI::Option* option : flags.app().get_options()) {
    if (option->get_lnames().empty() || is_about_output(option->get_lnames()[0])) continue;
    ConfigEntry entry{.key = option->get_lnames()[0], .array = option->get_items_expected_max() > 1};
    if (const auto found = resolved.find(entry.key); found != resolved.end())
      entry.values = found->second;
    else if (option->count() > 0)
      entry.values = option->results();
    else if (!option->get_default_str().empty() && has_what_it_needs(*option))
      entry.values = {option->get_default_str()};
    if (!entry.values.empty()) config.push_back(std::move(entry));
  }
  return config;
}

nlohmann::ordered_json to_json(const std::vector<ConfigEntry>& config) {
  const auto value = [](const std::string& text) {
    nlohmann::ordered_json v = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
    return v.is_number() || v.is_boolean() ? v : nlohmann::ordered_json(text);
  };
  nlohmann::ordered_json j = nlohmann::ordered_json::object();
  for (const ConfigEntry& entry : config) {
    std::string key = entry.key;
    std::replace(key.begin(), key.end(), '-', '_');
    if (!entry.array) {
      j[key] = value(entry.values[0]);
      continue;
    }
    j[key] = nlohmann::ordered_json::array();
    for (const std::string& v : entry.values) j[key].push_back(value(v));
  }
  return j;
}

nlohmann::ordered_json configuration_of(const ModelCard& card) {
  auto j = nlohmann::ordered_json::parse(card.configuration, nullptr, /*allow_exceptions=*/false);
  return j.is_object() ? j : nlohmann::ordered_json::object();
}

std::vector<std::string> changed_flags(const nlohmann::ordered_json& before, const nlohmann::ordered_json& now) {
  // What prolongs a training, where its files and its work lie, and what only its beginning reads.
  static const std::set<std::string> free{"epochs",           "steps",
                                          "data_path",        "val_data_path",
                                          "weights",          "finetune",
                                          "whiten",           "keep",
                                          "early_stop",       "tensorboard",
                                          "threads",          "workers",
                                          "device",           "decoder",
                                          "no_index",         "resident",
                                          "loader_memory",    "memory_budget",
                                          "autotune",         "workspace_limit",
                                          "no_cuda_graph",    "checkpoint_every",
                                          "teacher",          "convolt",
                                          "training_pictures"};
  std::vector<std::string> changes;
  if (before.empty()) return changes;
  const auto text = [](const nlohmann::ordered_json& from, const std::string& key) {
    return from.contains(key) ? json_text(from.at(key)) : "not given";
  };
  const auto compare = [&](const std::string& key) {
    const std::string was = text(before, key), is = text(now, key);
    if (was != is && free.count(key) == 0) changes.push_back(fmt::format("{} {} (was {})", flag_of(key), is, was));
  };
  for (const auto& [key, value] : now.items()) compare(key);
  for (const auto& [key, value] : before.items())
    if (!now.contains(key)) compare(key);
  return changes;
}

void save_config(const std::string& folder, const std::vector<ConfigEntry>& config) {
  make_output_folder(folder);
  AtomicFile file((std::filesystem::path(folder) / "config.toml").string());
  std::string text = "# Every flag of this training; convolt train --config config.toml --output-dir NEW repeats it.\n";
  for (const ConfigEntry& entry : config) text += format_config(entry) + "\n";
  file.write(text);
  file.commit();
}

}  // namespace convolt::cli
