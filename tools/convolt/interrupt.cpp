#include "interrupt.h"

#include <unistd.h>

#include <csignal>

#include "convolt/error.h"
#include "say.h"

namespace convolt::cli {
namespace {

// The second time: leave now. But a closed terminal sends SIGHUP several times, and what closes it may send SIGTERM
// too.
extern "C" void on_signal(int signal) {
  if (signal == SIGHUP && interrupt_signal != 0) return;
  if (const int before = interrupt_signal.exchange(signal); before != 0 && before != SIGHUP) _exit(128 + signal);
}

}  // namespace

std::atomic<int> interrupt_signal{0};

void take_signals() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  if (std::signal(SIGHUP, on_signal) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);  // nohup
}

int run_interruptibly(const std::function<int()>& work) {
  take_signals();
  try {
    return work();
  } catch (const Error& e) {
    if (interrupt_signal == 0) throw;
    say("convolt: {}\n", e.what());
    return 128 + interrupt_signal;
  }
}

}  // namespace convolt::cli
