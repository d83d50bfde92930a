// The number of a process that is no more.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

namespace convolt::test {

inline pid_t killed_process() {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  return child;
}

}  // namespace convolt::test
