// Runs the program and keeps what it said.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>

#include "support/temp_folder.h"

namespace convolt::test {

struct Outcome {
  int code = -1;  // exit code; 128 + signal for a killed program
  std::string out, error;
};

inline std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// 128 + signal for a killed process.
inline int code_of_status(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

// `arguments` as a shell would read them.
inline Outcome convolt(const std::string& arguments) {
  static const TempFolder folder;
  const std::string out = folder.path("out"), error = folder.path("error");
  const int status = std::system(("'" CONVOLT_PROGRAM "' " + arguments + " >'" + out + "' 2>'" + error + "'").c_str());
  Outcome o{code_of_status(status), text_of(out), text_of(error)};
  return o;
}

// Starts the program without a shell in between, so that a signal reaches it; returns its process id. What it says goes
// to a descriptor.
inline pid_t start_with_stderr(int descriptor, const std::vector<std::string>& arguments) {
  std::fflush(nullptr);  // else the child writes it again
  const pid_t child = fork();
  if (child != 0) return child;
  std::vector<char*> argv{const_cast<char*>(CONVOLT_PROGRAM)};
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  if (dup2(descriptor, STDERR_FILENO) < 0 || std::freopen("/dev/null", "w", stdout) == nullptr) _exit(127);
  std::signal(SIGHUP, SIG_DFL);  // the tests may run under nohup
  execv(CONVOLT_PROGRAM, argv.data());
  _exit(127);
}

inline pid_t start(const std::vector<std::string>& arguments) {
  const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
  const pid_t child = start_with_stderr(nowhere, arguments);
  close(nowhere);
  return child;
}

// Width and height that a PNG declares.
inline std::pair<int, int> png_size(const std::string& file) {
  if (file.size() < 24 || file.compare(1, 3, "PNG") != 0) return {0, 0};
  const auto number = [&](size_t at) {
    int value = 0;
    for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(file[at + i]);
    return value;
  };
  return {number(16), number(20)};
}

inline int wait_for(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return code_of_status(status);
}

}  // namespace convolt::test
