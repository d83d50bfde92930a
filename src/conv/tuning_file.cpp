#include "conv/tuning_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <zlib.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <filesystem>

#include "convolt/error.h"
#include "io/atomic_file.h"
#include "io/cache_folder.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "convolt-tuning ";
constexpr std::string_view kVersion = "1";
constexpr std::string_view kWrongText = "wrong";
constexpr int64_t kLargest = int64_t{64} << 20;

std::string checksum(std::string_view text) {
  const auto* bytes = reinterpret_cast<const Bytef*>(text.data());
  return fmt::format("{:08x}", crc32_z(crc32_z(0, nullptr, 0), bytes, text.size()));
}

// The text up to the next `end`, which is taken off with it; all that is left where there is none.
std::string_view take(std::string_view& text, char end) {
  const size_t n = text.find(end);
  const std::string_view taken = text.substr(0, n);
  text.remove_prefix(n == std::string_view::npos ? text.size() : n + 1);
  return taken;
}

// One line of the table; false where it is none.
bool parse_line(std::string_view line, TuningTable& table) {
  std::array<std::string_view, 5> field;
  for (std::string_view& f : field) {
    f = take(line, '\t');
    if (f.empty()) return false;
  }
  const auto& [environment, description, kernel, mode, time] = field;
  if (!line.empty() || (mode != "quick" && mode != "full")) return false;
  Timing timing{.full = mode == "full"};
  if (time != kWrongText) {
    const auto [end, error] = std::from_chars(time.data(), time.data() + time.size(), timing.nanoseconds);
    if (error != std::errc{} || end != time.data() + time.size() || timing.nanoseconds < 1) return false;
  }
  return table[{std::string(environment), std::string(description)}].emplace(kernel, timing).second;
}

// Held from construction to destruction; also between threads, as each has a descriptor of its own.
class Lock {
public:
  explicit Lock(const std::string& path) : file_(path, O_RDWR | O_CREAT, 0666) {
    if (!file_.valid()) fail(path);
    while (::flock(file_.get(), LOCK_EX) != 0)
      if (errno != EINTR) fail(path);
  }

private:
  [[noreturn]] static void fail(const std::string& path) {
    throw Error(fmt::format("cannot lock {}: {}", path, errno_reason()));
  }
  Descriptor file_;
};

std::string lock_path(const std::string& path) { return path + ".lock"; }

}  // namespace

void merge(TuningTable& into, const TuningTable& more) {
  for (const auto& [key, timings] : more)
    for (const auto& [kernel, timing] : timings) {
      auto [known, fresh] = into[key].try_emplace(kernel, timing);
      if (!fresh && (timing.full || !known->second.full)) known->second = timing;
    }
}

std::string format_tuning(const TuningTable& table) {
  std::string lines;
  for (const auto& [key, timings] : table)
    for (const auto& [kernel, timing] : timings)
      lines += fmt::format(
          "{}\t{}\t{}\t{}\t{}\n", key.environment, key.description, kernel, timing.full ? "full" : "quick",
          timing.nanoseconds == Timing::kWrong ? std::string(kWrongText) : std::to_string(timing.nanoseconds));
  return with_first_line(lines);
}

std::string with_first_line(const std::string& lines) {
  return fmt::format("{}{} {}\n{}", kMagic, kVersion, checksum(lines), lines);
}

TuningTable parse_tuning(std::string_view text, const std::string& path) {
  if (!text.starts_with(kMagic)) throw FormatError(path + ": it holds no kernel timings of Convolt");
  text.remove_prefix(kMagic.size());
  std::string_view header = take(text, '\n');
  if (const std::string_view version = take(header, ' '); version != kVersion)
    throw FormatError(
        fmt::format("{}: its kernel timings are of version '{}', and this program reads {}", path, version, kVersion));
  if (header != checksum(text)) throw FormatError(path + ": it is damaged: its checksum does not fit");
  TuningTable table;
  for (int line = 2; !text.empty(); ++line)
    if (!parse_line(take(text, '\n'), table))
      throw FormatError(fmt::format("{}:{}: it is no kernel timing", path, line));
  return table;
}

TuningTable read_tuning(const std::string& path) {
  const std::vector<uint8_t> bytes = read_file(path, kLargest);
  return parse_tuning({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

void write_tuning(const std::string& path, const TuningTable& table) {
  AtomicFile file(path);
  file.write(format_tuning(table));
  file.commit();
}

std::string TuningCache::default_path() {
  const fs::path folder = cache_folder();
  return folder.empty() ? "" : folder / fmt::format("tuning-{}.txt", kVersion);
}

TuningTable TuningCache::read() const {
  std::error_code ignored;
  if (path_.empty() || !fs::exists(path_, ignored)) return {};
  return read_tuning(path_);
}

void TuningCache::add(const TuningTable& measured) const {
  if (path_.empty()) throw Error("there is no cache folder: neither XDG_CACHE_HOME nor HOME is an absolute path");
  make_output_folder(fs::path(path_).parent_path());
  const Lock lock(lock_path(path_));
  TuningTable table;
  try {
    table = read();
  } catch (const DataError&) {  // a new file takes its place
  }
  merge(table, measured);
  write_tuning(path_, table);
}

void TuningCache::clear() const {
  std::error_code error;
  if (path_.empty() || !fs::exists(path_, error)) return;
  const Lock lock(lock_path(path_));
  fs::remove(path_, error);
  if (error) throw Error(fmt::format("cannot remove {}: {}", path_, error.message()));
}

}  // namespace convolt
