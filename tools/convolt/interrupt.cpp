#include "interrupt.h"

#include <unistd.h>

#include <csignal>

#include "commands.h"
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

extern "C" void leave(int signal) { _exit(code_of_saved(signal)); }

void have_signals_call(void (*handler)(int)) {
  std::signal(SIGINT, handler);
  std::signal(SIGTERM, handler);
  if (std::signal(SIGHUP, handler) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);  // nohup
}

}  // namespace

std::atomic<int> interrupt_signal{0};

int code_of_saved(int signal) { return signal == SIGTERM ? kRequeue : kInterrupted; }

void take_signals() { have_signals_call(on_signal); }
void leave_at_signals() { have_signals_call(leave); }

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
