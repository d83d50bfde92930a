// What a report says, and its page.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "charts.h"
#include "confusion.h"
#include "convolt/checkpoint.h"
#include "convolt/evaluation.h"

namespace convolt::cli {

// metrics.jsonl as curves over steps.
struct Metrics {
  std::vector<Point> loss, top1, rate, validation_loss, validation_top1;
  double steps_per_epoch = 0;  // 0: not known
};

// A picture that the network is wrong about.
struct Mistake {
  std::string name, label, guess;
  double label_probability = 0, guess_probability = 0;
  std::string picture;  // a data: URL
  bool small = false;   // enlarge as squares
};

// The network on the validation pictures.
struct Measured {
  std::string on;  // which pictures
  Evaluation evaluation;
  int64_t skipped = 0;
  Confusion confusion;
  std::vector<Mistake> mistakes;  // the worst first
};

using Facts = std::vector<std::pair<std::string, std::string>>;

struct Report {
  std::string run;
  ModelCard card;
  int64_t parameters = 0, multiply_adds = 0;
  Metrics metrics;
  std::optional<Measured> measured;
  std::vector<std::string> notes;  // what is missing, and why
  Facts configuration, environment;
};

// The same report, the same bytes.
std::string report_html(const Report& report);

}  // namespace convolt::cli
