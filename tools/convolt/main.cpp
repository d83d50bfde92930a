// convolt: the command line.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <new>
#include <system_error>

#include "commands.h"
#include "config.h"
#include "convolt/error.h"
#include "convolt/version.h"
#include "io/names.h"
#include "say.h"

namespace convolt::cli {
namespace {

// Idle OpenMP threads must sleep: decoders share their cores. libgomp reads the variable when it is loaded, so the
// program starts itself again with it set.
void restart_with_sleeping_threads(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv("OMP_WAIT_POLICY", "passive", 1);
  execv("/proc/self/exe", argv);  // returns only on failure: then go on as we are
}

// A file that is opened must not become standard output or standard error where those are closed: what is said would be
// written into it. For reading alone, so that writing results still fails.
void open_standard_streams() {
  int descriptor = 0;
  while (descriptor >= 0 && descriptor <= STDERR_FILENO) descriptor = open("/dev/null", O_RDONLY);
  if (descriptor > STDERR_FILENO) close(descriptor);
}

// A reader of what is said that has gone, and a file that may not grow, are errors of the write: they end no training
// unsaved, and leave no file half written.
void have_writes_fail() {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

// The long flags and aliases of an app and the names of its subcommands.
std::vector<std::string> known_words(const CLI::App& app) {
  std::vector<std::string> words;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    words.push_back(sub->get_name());
  return words;
}

int usage_error(const CLI::App& program, const CLI::ParseError& error) {
  const CLI::App* app = &program;
  std::string names;  // "bench kernels "
  for (auto parsed = app->get_subcommands(); !parsed.empty(); parsed = app->get_subcommands()) {
    app = parsed.front();
    names += app->get_name() + " ";
  }
  std::string message = error.what();
  constexpr std::string_view kTwice = ": At Most 1 required but received ";
  if (const size_t at = message.find(kTwice); at != std::string::npos)
    message =
        fmt::format("{} is given {} times, expected once", message.substr(0, at), message.substr(at + kTwice.size()));
  // A mistyped flag often shows first as another one that is missing: name the cause.
  if (const auto extras = app->remaining(); !extras.empty()) {
    const std::string word = extras.front().substr(0, extras.front().find('='));
    const std::string near = nearest_name(word, known_words(*app));
    message = fmt::format("unknown {} '{}'{}", word.starts_with("-") ? "flag" : "word", word,
                          near.empty() ? "" : fmt::format(", did you mean '{}'?", near));
  }
  say("convolt: {}\nsee convolt {}--help\n", message, names);
  return kUsage;
}

int fail(const char* message, int code) {
  say("convolt: {}\n", message);
  return code;
}

int run(int argc, char** argv) {
  CLI::App program("Convolt trains convolutional networks on image data sets, on NVIDIA GPUs and on CPUs.", "convolt");
  program.set_version_flag("--version", "convolt " CONVOLT_VERSION);
  program.require_subcommand(1);
  program.get_formatter()->column_width(36);
  program.footer(
      "Exit codes: 0 done, 1 failure, 2 usage, 3 data, 4 device, 5 out of memory,\n75 saved after SIGTERM, 130 saved "
      "after SIGINT or SIGHUP.\n\n"
      "Examples:\n  convolt train --data-path DATA --model resnet20 --epochs 10 -b 128 --output-dir run\n"
      "  convolt eval --checkpoint run/best.safetensors --data-path DATA\n  convolt predict --checkpoint "
      "run/best.safetensors picture.jpg");
  const Subcommand commands[] = {add_train(program), add_eval(program),   add_predict(program), add_inspect(program),
                                 add_synth(program), add_models(program), add_augment(program), add_report(program),
                                 add_tune(program),  add_pack(program),   add_unpack(program),  add_bench(program),
                                 add_verify(program)};
  const std::vector<std::string> given{argv + 1, argv + argc};
  if (const std::optional<std::string_view> recipe = recipe_to_print(given)) {
    fmt::print("{}", *recipe);
    return 0;
  }
  std::vector<std::string> words = with_config(program, given);
  std::reverse(words.begin(), words.end());  // as CLI11 wants them
  try {
    program.parse(words);
  } catch (const CLI::Success& e) {
    return program.exit(e);
  } catch (const CLI::ParseError& e) {
    return usage_error(program, e);
  }
  // OpenCV's decoders write there what they refuse, line upon line; what there is to say, we say ourselves, by fmt.
  std::cerr.rdbuf(nullptr);
  for (const Subcommand& c : commands)
    if (c.flags.parsed()) return c.run();
  return kUsage;
}

int guarded_run(int argc, char** argv) {
  try {
    const int code = run(argc, argv);
    flush_output();
    return code;
  } catch (const std::system_error& e) {  // of fmt, printing, or of flush_output()
    if (std::ferror(stdout) == 0) return fail(e.what(), kFailure);
    if (e.code() == std::errc::broken_pipe) return kFailure;  // convolt models | head -3: nobody wants to hear of it
    return fail("standard output cannot be written; is it closed, or its disk full?", kFailure);
  } catch (const std::bad_alloc&) {
    return fail("out of host memory; try a smaller batch (-b)", kOutOfMemory);
  } catch (const std::exception& e) {
    return fail(e.what(), exit_code_of(e));
  }
}

}  // namespace

void flush_output() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    throw std::system_error(errno, std::generic_category(), "standard output");
}

}  // namespace convolt::cli

int main(int argc, char** argv) {
  convolt::cli::have_writes_fail();
  convolt::cli::open_standard_streams();
  convolt::cli::restart_with_sleeping_threads(argv);
  return convolt::cli::guarded_run(argc, argv);
}
