#include "data/archive_layout.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "convolt/error.h"
#include "data/split_names.h"

namespace convolt {
namespace {

using Kind = ArchiveMember::Kind;

constexpr std::array<std::string_view, 11> kPictures{"jpg", "jpeg", "png", "webp", "bmp", "gif",
                                                     "tif", "tiff", "ppm", "pgm",  "pnm"};

struct Key {
  std::string_view key;   // up to the first dot of the last component
  std::string extension;  // after it, in lower case
};
Key key_of(std::string_view member) {
  const size_t component = member.rfind('/') + 1;  // npos + 1 is 0
  const size_t dot = member.find('.', component);
  if (dot == std::string_view::npos) return {member, ""};
  return {member.substr(0, dot), lower_case(member.substr(dot + 1))};
}

bool is_picture(const Key& key) {
  return std::find(kPictures.begin(), kPictures.end(), key.extension) != kPictures.end();
}
bool is_label(const Key& key) { return key.extension == "cls" || key.extension == "json"; }

// Refuses what would be a sample and cannot be read.
void check_readable(const Archive& archive, const ArchiveMember& member) {
  const char* reason = nullptr;
  switch (member.kind) {
    case Kind::link:
      reason =
          "is a link, and links are not followed inside archives; pack what they point to (tar -h, zip without -y)";
      break;
    case Kind::sparse:
      reason = "is stored as a sparse file, which cannot be read at random; pack without tar's -S";
      break;
    case Kind::encrypted:
      reason = "is encrypted, and passwords are not supported; pack without one";
      break;
    case Kind::unknown_method:
      reason = "is compressed by a method that is not supported; expected a stored or deflated member";
      break;
    default:
      return;
  }
  throw FormatError(archive.name_of(member) + ": " + reason);
}

using Folders = std::set<std::string, std::less<>>;

// The names of the folders directly below `prefix`.
Folders folders_below(const Archives& archives, const std::string& prefix) {
  Folders folders;
  for (const auto& archive : archives)
    for (const ArchiveMember& member : archive->members()) {
      const std::string_view name = member.name;
      if (!name.starts_with(prefix)) continue;
      const std::string_view rest = name.substr(prefix.size()), first = rest.substr(0, rest.find('/'));
      const bool folder = first.size() < rest.size() || member.kind == Kind::folder;
      if (folder && !first.empty() && !folders.contains(first)) folders.emplace(first);
    }
  return folders;
}

struct Root {
  std::string prefix;  // empty, or ends with '/'
  std::optional<std::string> train, validation;
};
Root find_root(const Archives& archives) {
  const auto root_at = [&](const std::string& prefix, const Folders& folders) {
    const std::vector<std::string> names(folders.begin(), folders.end());
    const auto has_folders = [&](const std::string& name) {
      return !folders_below(archives, prefix + name + "/").empty();
    };
    return Root{prefix, split_folder(names, Split::train, has_folders),
                split_folder(names, Split::validation, has_folders)};
  };
  const Folders top = folders_below(archives, "");
  Root root = root_at("", top);
  if (root.train || root.validation || top.size() != 1) return root;
  const std::string inner = *top.begin() + "/";
  const Folders below = folders_below(archives, inner);
  return below.empty() ? root : root_at(inner, below);
}

// Files below prefix/class/, by class and then bytewise by the path below it.
std::vector<ArchiveSample> files_below(const Archives& archives, const std::string& prefix,
                                       const std::vector<std::string>& classes) {
  struct File {
    ArchiveSample sample;
    std::string_view below;
  };
  std::vector<File> files;
  for (uint32_t a = 0; a < archives.size(); ++a) {
    const auto& members = archives[a]->members();
    for (uint32_t m = 0; m < members.size(); ++m) {
      const std::string_view name = members[m].name;
      if (members[m].kind == Kind::folder || !name.starts_with(prefix)) continue;
      const size_t slash = name.find('/', prefix.size());
      if (slash == std::string_view::npos || is_no_picture(name)) continue;
      const auto label =
          std::lower_bound(classes.begin(), classes.end(), name.substr(prefix.size(), slash - prefix.size()));
      files.push_back({{a, m, static_cast<int32_t>(label - classes.begin())}, name.substr(slash + 1)});
    }
  }
  std::stable_sort(files.begin(), files.end(), [](const File& a, const File& b) {
    return std::tie(a.sample.label, a.below) < std::tie(b.sample.label, b.below);
  });
  std::vector<ArchiveSample> samples;
  for (size_t i = 0; i < files.size(); ++i) {
    const File& file = files[i];
    if (i + 1 < files.size() && files[i + 1].sample.label == file.sample.label && files[i + 1].below == file.below)
      continue;  // the last counts
    check_readable(*archives[file.sample.archive], archives[file.sample.archive]->members()[file.sample.member]);
    samples.push_back(file.sample);
  }
  return samples;
}

std::vector<std::string> classes_below(const Archives& archives, const std::string& prefix) {
  const Folders folders = folders_below(archives, prefix);
  return {folders.begin(), folders.end()};
}

// Whether the folder of a split has folders of classes. What stands beside their pictures describes these.
bool has_split_folders(const Archives& archives) {
  const Root root = find_root(archives);
  return std::ranges::any_of(std::array{root.train, root.validation}, [&](const std::optional<std::string>& split) {
    return split && !folders_below(archives, root.prefix + *split + "/").empty();
  });
}

// The parts of one sample.
struct Group {
  int64_t picture = -1;
  int32_t label = -1;
  bool labelled = false;
  bool by_cls = false;
};
// In the order in which the first of their members come.
std::vector<Group> groups_of(const Archive& archive) {
  std::vector<Group> groups;
  std::unordered_map<std::string_view, size_t> by_key;
  const auto& members = archive.members();
  for (size_t m = 0; m < members.size(); ++m) {
    const Key key = key_of(members[m].name);
    const bool picture = is_picture(key);
    if (members[m].kind == Kind::folder || (!picture && !is_label(key))) continue;
    const auto [at, fresh] = by_key.try_emplace(key.key, groups.size());
    if (fresh) groups.emplace_back();
    Group& group = groups[at->second];
    if (picture) {
      group.picture = static_cast<int64_t>(m);
    } else if (key.extension == "cls" || !group.labelled || members[m].label >= 0) {
      group.label = members[m].label;
      group.labelled = true;
      group.by_cls |= key.extension == "cls";
    }
  }
  return groups;
}

}  // namespace

std::string member_name(std::string_view path) {
  std::string name;
  while (!path.empty()) {
    const size_t slash = std::min(path.find('/'), path.size());
    const std::string_view component = path.substr(0, slash);
    path.remove_prefix(std::min(slash + 1, path.size()));
    if (component.empty() || component == ".") continue;
    if (component.front() == '.' || (name.empty() && component == "__MACOSX")) return "";
    if (!name.empty()) name += '/';
    name += component;
  }
  return name;
}

bool label_file(std::string_view member, int64_t bytes) {
  constexpr int64_t kMost = 1 << 16;
  return bytes <= kMost && is_label(key_of(member));
}

int32_t label_in(std::string_view member, std::string_view text) {
  int64_t label = -1;
  if (key_of(member).extension == "cls") {
    constexpr std::string_view kSpace = " \t\r\n";
    text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
    text = text.substr(0, text.find_last_not_of(kSpace) + 1);
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), label);
    if (error != std::errc() || end != text.data() + text.size()) return -1;
  } else {
    const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) return -1;
    for (const char* name : {"cls", "label"})
      if (const auto value = json.find(name); value != json.end()) {
        if (value->is_number_integer()) label = value->get<int64_t>();
        break;
      }
  }
  return label >= 0 && label < kMostClasses ? static_cast<int32_t>(label) : -1;
}

bool is_webdataset(const Archives& archives) {
  bool labelled = false;
  for (const auto& archive : archives) {
    // Grouping takes a while, and the members of an image folder need none.
    if (std::ranges::none_of(archive->members(), [](const ArchiveMember& m) { return is_label(key_of(m.name)); }))
      continue;
    for (const Group& group : groups_of(*archive)) {
      if (group.picture < 0 || !group.labelled) continue;
      if (group.by_cls) return true;
      labelled = true;
    }
  }
  return labelled && !has_split_folders(archives);
}

ArchiveSamples webdataset_samples(const Archives& archives, size_t classes) {
  ArchiveSamples result;
  for (uint32_t a = 0; a < archives.size(); ++a)
    for (const Group& group : groups_of(*archives[a])) {
      if (group.picture < 0) continue;
      const ArchiveMember& member = archives[a]->members()[static_cast<size_t>(group.picture)];
      check_readable(*archives[a], member);
      if (group.label < 0)
        throw FormatError(archives[a]->name_of(member) +
                          ": has no class; expected a .cls or .json file beside it with a number from 0 to " +
                          std::to_string(kMostClasses - 1) + " (JSON: under \"cls\" or \"label\")");
      result.samples.push_back({a, static_cast<uint32_t>(group.picture), group.label});
      classes = std::max(classes, static_cast<size_t>(group.label) + 1);
    }
  for (size_t c = 0; c < classes; ++c) result.classes.push_back(std::to_string(c));
  return result;
}

std::optional<ArchiveSamples> folder_samples(const Archives& archives, Split split, bool whole) {
  const Root root = find_root(archives);
  const bool bare = !root.train && !root.validation;
  const auto& folder = split == Split::train ? root.train : root.validation;
  if (!folder && (!bare || (split == Split::validation && !whole))) return std::nullopt;
  const std::string prefix = root.prefix + (folder ? *folder + "/" : "");
  const std::string where = (archives.front()->path() / prefix).string();
  ArchiveSamples result{classes_below(archives, prefix), {}};
  check_has_classes(result.classes, where);
  result.samples = files_below(archives, prefix, result.classes);
  if (result.samples.empty())
    throw DataError(where + ": has no files in its class folders; expected <class>/<picture>");
  if (split == Split::validation && root.train)
    check_same_classes(classes_below(archives, root.prefix + *root.train + "/"), result.classes, where);
  return result;
}

}  // namespace convolt
