#include "progress.h"
#include "say.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <utility>

namespace convolt::cli {
namespace {

std::string duration(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

std::string loss_text(double loss) {
  constexpr double kLarge = 1e5;  // one that grows without bound has digits without end
  if (std::isnan(loss)) return "nan";
  return std::abs(loss) < kLarge ? fmt::format("{:.4f}", loss) : fmt::format("{:.4g}", loss);
}

int terminal_width() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// What fits into so many columns; the rest of the figures is left out, whole, the least telling first.
std::string figures(const TrainProgress& p, size_t room = std::string::npos) {
  std::array<std::string, 5> all{"loss " + loss_text(p.loss), fmt::format("top-1 {:5.2f} %", 100 * p.top1),
                                 fmt::format("lr {:.4g}", p.learning_rate),
                                 fmt::format("{:.0f} img/s", p.images_per_second),
                                 fmt::format("ETA {}", duration(p.seconds_left))};
  std::string line;
  const auto join = [&] {
    line.clear();
    for (const std::string& figure : all)
      if (!figure.empty()) line += (line.empty() ? "" : "  ") + figure;
  };
  join();
  for (const size_t left_out : {2, 3, 1, 4, 0}) {
    if (line.size() <= room) break;
    all[left_out].clear();
    join();
  }
  return line;
}

}  // namespace

std::string data_line(const DataTimes& t) {
  constexpr double kMuch = 0.05, kMostOfIt = 0.5;
  const std::string wait = fmt::format("waited for data {:.0f} % of the time", 100 * t.waited);
  // The host does not see the device wait for a copy, only that no memory becomes free to decode into.
  if (t.waited < kMuch && t.copy < kMostOfIt) return wait + ": computing takes longest";
  std::array<std::pair<double, const char*>, 3> parts{
      {{t.decode, "decoding"}, {t.read, "reading"}, {t.copy, "copying to the device"}}};
  std::stable_sort(parts.begin(), parts.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  return fmt::format("{}: {} ({:.0f} % of a worker's time), {} {:.0f} %, {} {:.0f} %", wait, parts[0].second,
                     100 * parts[0].first, parts[1].second, 100 * parts[1].first, parts[2].second,
                     100 * parts[2].first);
}

void show_progress(const std::string& text) {
  if (isatty(STDERR_FILENO) == 0) return;
  say("\r\x1b[K{}", text);
  std::fflush(stderr);
}
void clear_progress() {
  if (isatty(STDERR_FILENO) != 0) say("\r\x1b[K");
}

ProgressPrinter::ProgressPrinter(bool quiet)
    : quiet_(quiet),
      terminal_(isatty(STDERR_FILENO) != 0),
      colour_(terminal_ && std::getenv("NO_COLOR") == nullptr),
      last_line_(std::chrono::steady_clock::now()) {}

void ProgressPrinter::clear_line() const {
  if (terminal_) say("\r\x1b[K");
}

void ProgressPrinter::bar(const TrainProgress& p) {
  const std::string left = fmt::format("epoch {}/{} ", p.epoch + 1, p.epochs);
  std::string right = figures(p);
  const int width = terminal_width() - 1;  // so that the line never wraps
  const int room = std::clamp(width - static_cast<int>(left.size() + right.size()) - 3, 0, 40);
  const int full = static_cast<int>(room * p.step_in_epoch / std::max<int64_t>(1, p.steps_per_epoch));
  std::string line = left;
  if (room >= 8) {
    std::string blocks;
    for (int i = 0; i < room; ++i) blocks += i < full ? "━" : "╌";
    line += fmt::format("{}{}{}", colour_ ? "\x1b[36m" : "", blocks, colour_ ? "\x1b[0m" : "");
  } else {
    line += fmt::format("{}/{}", p.step_in_epoch, p.steps_per_epoch);
    right = figures(p, static_cast<size_t>(std::max(0, width - static_cast<int>(line.size()) - 1)));
  }
  say("\r\x1b[K{} {}", line, right);
  std::fflush(stderr);
}

void ProgressPrinter::clear() {
  validation_.reset();
  if (!quiet_) clear_line();
}

void ProgressPrinter::validating(int64_t done, int64_t all) {
  if (!validation_) validation_.emplace("validating", all, quiet_);
  validation_->at(done);
}

void ProgressPrinter::progress(const TrainProgress& p) {
  if (quiet_) return;
  if (terminal_) return bar(p);
  // In a file or a pipe: a line now and then, so that logs stay short.
  const auto now = std::chrono::steady_clock::now();
  if (now - last_line_ < std::chrono::seconds(10)) return;
  last_line_ = now;
  say("epoch {}/{}  step {}/{}  {}\n", p.epoch + 1, p.epochs, p.step, p.total_steps, figures(p));
}

void ProgressPrinter::epoch(const EpochSummary& s) {
  clear();
  if (quiet_) return;
  std::string line = fmt::format("epoch {:<3} train loss {}  top-1 {:5.2f} %", s.epoch + 1, loss_text(s.train_loss),
                                 100 * s.train_top1);
  if (s.validation) {
    line += fmt::format("   val loss {}  top-1 {:5.2f} %", loss_text(s.validation->loss), 100 * s.validation->top1);
    if (s.validation->skipped > 0) line += fmt::format("  ({} skipped)", s.validation->skipped);
    if (s.best) line += "  best";
  }
  say("{}  [{}]\n", line, duration(s.seconds));
  last_line_ = std::chrono::steady_clock::now();
}

}  // namespace convolt::cli
