// What convolt verify found, and its forms.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "data/examine.h"

namespace convolt::cli {

// One part of a data set, examined.
struct VerifiedPart {
  std::string name;  // "training", "validation"
  const Dataset* data = nullptr;
  std::vector<Examined> samples;
};

struct Verification {
  std::string path, format;  // as Dataset::describe() has it
  std::vector<std::string> classes;
  std::vector<VerifiedPart> parts;               // one or two
  std::vector<std::vector<SampleOf>> identical;  // set: index into parts

  // Of one group of identical samples: in both parts, or of several classes.
  bool leaks(const std::vector<SampleOf>& group) const;
  bool disagrees(const std::vector<SampleOf>& group) const;
  int64_t broken() const;
  const Examined& at(const SampleOf& s) const { return parts[s.set].samples[static_cast<size_t>(s.sample)]; }
  std::string name_of(const SampleOf& s) const { return parts[s.set].data->name(s.sample); }
  std::string class_of(int32_t label) const;
};

// Smallest, middle and largest of some numbers.
struct Spread {
  int64_t least = 0, median = 0, most = 0;
};

// The figures of one part.
struct PartFigures {
  int64_t pictures = 0, broken = 0, bytes = 0, turned = 0;
  std::vector<std::pair<std::string, int64_t>> formats, colours;  // most frequent first
  Spread width, height;                                           // of those whose size is known
  std::vector<int64_t> per_class;
};
PartFigures figures_of(const VerifiedPart& part, size_t classes);

// For a terminal; at most `most` lines of each list.
std::string verification_text(const Verification& v, int most);
nlohmann::ordered_json verification_json(const Verification& v);
std::string verification_page(const Verification& v);

}  // namespace convolt::cli
