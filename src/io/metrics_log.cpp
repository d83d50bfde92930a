#include "io/metrics_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <limits>
#include <string_view>

#include "convolt/error.h"
#include "io/atomic_file.h"

namespace convolt {
namespace {

bool is_at_most(std::string_view line, int64_t step) {
  const auto object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return false;
  const auto found = object.find("step");
  return found != object.end() && found->is_number_integer() && found->get<int64_t>() <= step;
}

std::string lines_up_to(std::string_view text, int64_t step) {
  std::string kept;
  for (size_t end; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1))
    if (is_at_most(text.substr(0, end), step)) kept += text.substr(0, end + 1);
  return kept;
}

}  // namespace

MetricsLog MetricsLog::create(std::string path) { return MetricsLog(std::move(path), O_TRUNC); }

MetricsLog MetricsLog::resume(std::string path, int64_t step) {
  if (std::error_code ignored; std::filesystem::exists(path, ignored)) {
    const auto bytes = read_file(path, std::numeric_limits<int64_t>::max());
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const std::string kept = lines_up_to(text, step);
    if (kept != text) {
      AtomicFile file(path);
      file.write(kept);
      file.commit();
    }
  }
  return MetricsLog(std::move(path), 0);
}

MetricsLog::MetricsLog(std::string path, int extra_flags)
    : path_(std::move(path)), file_(path_, O_WRONLY | O_CREAT | O_APPEND | extra_flags, 0666) {
  if (!file_.valid()) fail();
}

void MetricsLog::append(const nlohmann::ordered_json& object) {
  const std::string line = object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
  const off_t before = ::lseek(file_.get(), 0, SEEK_END);
  if (file_.write_all(std::as_bytes(std::span(line)))) return;
  const int reason = errno;
  // Otherwise the next line would be glued to half of this one. Nothing more can be done where this fails too.
  if (before >= 0) static_cast<void>(!::ftruncate(file_.get(), before));
  errno = reason;
  fail();
}

void MetricsLog::fail() const { throw Error(fmt::format("cannot write {}: {}", path_, errno_reason())); }

}  // namespace convolt
