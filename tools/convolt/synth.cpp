#include "convolt/synth.h"

#include <fmt/format.h>

#include "commands.h"
#include "flags.h"

namespace convolt::cli {

Subcommand add_synth(CLI::App& program) {
  CLI::App* app =
      program.add_subcommand("synth", "draw a data set of textured shapes, to try things without a download");
  auto o = std::make_shared<SynthOptions>();
  app->add_option("output", o->output, "folder to make")->required();
  app->add_option("--classes", o->classes, "kinds of shapes")
      ->check(CLI::Range(2, SynthOptions::kMaxClasses))
      ->capture_default_str();
  app->add_option("--train-per-class", o->train_per_class, "training pictures of each")
      ->check(at_least(1))
      ->capture_default_str();
  app->add_option("--val-per-class", o->val_per_class, "validation pictures of each")
      ->check(at_least(0))
      ->capture_default_str();
  app->add_option("--min-side", o->min_side, "smallest side")->check(CLI::Range(16, 4096))->capture_default_str();
  app->add_option("--max-side", o->max_side, "largest side")->check(CLI::Range(16, 4096))->capture_default_str();
  app->add_option("--jpeg-quality", o->jpeg_quality, "")->check(CLI::Range(1, 100))->capture_default_str();
  app->add_option("-j,--workers", o->threads, "threads")->check(at_least(1))->capture_default_str();
  app->add_option("--seed", o->seed, "same seed, same pictures")->capture_default_str();
  app->footer(
      "The training pictures show each shape upright and at one scale; the validation pictures turned, at other scales "
      "and mirrored.\n\n"
      "Example:\n  convolt synth shapes --classes 10 --train-per-class 200");
  return {app, [o] {
            make_synthetic_dataset(*o);
            fmt::print("{}: {} classes, {} pictures for training, {} for validation\n", o->output, o->classes,
                       o->classes * o->train_per_class, o->classes * o->val_per_class);
            return 0;
          }};
}

}  // namespace convolt::cli
