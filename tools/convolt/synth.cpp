#include "convolt/synth.h"

#include <fmt/format.h>

#include "commands.h"
#include "flags.h"
#include "interrupt.h"

namespace convolt::cli {

Subcommand add_synth(CLI::App& program) {
  FlagSet flags(program, "synth", "draw a data set of textured shapes, to try things without a download");
  auto o = std::make_shared<SynthOptions>();
  flags.option("output", o->output, "folder to make").required();
  flags.option("--classes", o->classes, "kinds of shapes").check(between(2, SynthOptions::kMaxClasses));
  flags.option("--train-per-class", o->train_per_class, "training pictures of each").check(at_least(1));
  flags.option("--val-per-class", o->val_per_class, "validation pictures of each").check(at_least(0));
  flags.option("--min-side", o->min_side, "smallest side").check(between(16, 4096));
  flags.option("--max-side", o->max_side, "largest side").check(between(16, 4096));
  flags.option("--jpeg-quality", o->jpeg_quality, "quality of the JPEG files").check(between(1, 100));
  flags.option("-j,--workers", o->threads, "threads").check(at_least(1));
  flags.option("--seed", o->seed, "same seed, same pictures");
  flags.footer(
      "The training pictures show each shape upright and at one scale; the validation pictures turned, at other scales "
      "and mirrored.\n\n"
      "Example:\n  convolt synth shapes --classes 10 --train-per-class 200");
  return {flags, [o] {
            return run_interruptibly([&] {
              o->interrupt = &interrupt_signal;
              make_synthetic_dataset(*o);
              fmt::print("{}: {} classes, {} pictures for training, {} for validation\n", o->output, o->classes,
                         o->classes * o->train_per_class, o->classes * o->val_per_class);
              return 0;
            });
          }};
}

}  // namespace convolt::cli
