// Signals that ask the program to end, for commands that leave things in order first.
#pragma once

#include <atomic>
#include <functional>

namespace convolt::cli {

// SIGINT, SIGTERM or SIGHUP, once it has come; 0 before.
extern std::atomic<int> interrupt_signal;

// From now on these signals only set interrupt_signal; the second one ends the program at once.
void take_signals();

// From now on they end the program at once, for a training that has nothing to save yet.
void leave_at_signals();
// The exit code of a training that lost nothing to the signal.
int code_of_saved(int signal);

// For work that ends with an Error when interrupt_signal is set. The exit code is then that of a process which the
// signal has killed.
int run_interruptibly(const std::function<int()>& work);

}  // namespace convolt::cli
