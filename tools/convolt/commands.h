// The subcommands. Each adds itself to the program; what it returns runs it and gives the exit code.
#pragma once

#include <functional>

#include "flag_set.h"

namespace convolt::cli {

using Command = std::function<int()>;
struct Subcommand {
  FlagSet flags;
  Command run;
};

Subcommand add_train(CLI::App& program);
Subcommand add_eval(CLI::App& program);
Subcommand add_predict(CLI::App& program);
Subcommand add_inspect(CLI::App& program);
Subcommand add_synth(CLI::App& program);
Subcommand add_models(CLI::App& program);
Subcommand add_augment(CLI::App& program);
Subcommand add_report(CLI::App& program);
Subcommand add_tune(CLI::App& program);
Subcommand add_pack(CLI::App& program);
Subcommand add_unpack(CLI::App& program);
Subcommand add_bench(CLI::App& program);
Subcommand add_verify(CLI::App& program);

// Throws std::system_error where what was printed to stdout cannot be written.
void flush_output();

// The table of networks, which inspect --list prints too.
int list_models(bool json);

// Exit codes.
constexpr int kFailure = 1, kUsage = 2, kData = 3, kDevice = 4, kOutOfMemory = 5, kRequeue = 75, kInterrupted = 130;

}  // namespace convolt::cli
