// A short run of every fuzz target with any compiler: the seeds themselves, then seeds with a few faults of a fixed
// sequence. The long runs are libFuzzer's: tests/fuzz/run.sh.
#include <gtest/gtest.h>

#include <array>
#include <random>

#include "fuzz/targets.h"

namespace convolt::test {
namespace {

using Bytes = std::vector<uint8_t>;

class Mutator {
public:
  explicit Mutator(std::vector<Bytes> seeds) : seeds_(std::move(seeds)) {}

  Bytes next() {
    Bytes bytes = any(seeds_);
    for (size_t faults = 1 + below(4); faults > 0; --faults) break_something(bytes);
    return bytes;
  }

private:
  size_t below(size_t n) { return n == 0 ? 0 : std::uniform_int_distribution<size_t>(0, n - 1)(random_); }
  template <class T>
  const T& any(const std::vector<T>& of) {
    return of[below(of.size())];
  }
  // Half of all faults lie where headers are.
  size_t place(const Bytes& bytes) { return below(below(2) == 0 ? bytes.size() : std::min<size_t>(bytes.size(), 64)); }

  void break_something(Bytes& bytes) {
    static const std::vector<uint8_t> kBytes{0, 1, 0x7f, 0x80, 0xff, '"', '[', ']', '{', '}', ',', ':', '-', '9', '\n'};
    static const std::vector<std::string> kWords{"-1",      "0",    "1e999", "4294967296", "9223372036854775807",
                                                 "null",    "true", "[[[[",  "\"\"",       "\\u0000",
                                                 "1048576", "[]"};
    const size_t at = place(bytes), length = std::min(bytes.size() - at, below(32));
    const auto here = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    const Bytes part(here, here + static_cast<std::ptrdiff_t>(length));
    switch (below(6)) {
      case 0:
        if (!bytes.empty()) bytes[at] = static_cast<uint8_t>(bytes[at] ^ 1U << below(8));
        break;
      case 1:
        if (!bytes.empty()) bytes[at] = any(kBytes);
        break;
      case 2:
        bytes.erase(here, here + static_cast<std::ptrdiff_t>(length));
        break;
      case 3:
        bytes.insert(here, part.begin(), part.end());
        break;
      case 4: {
        const std::string& word = any(kWords);
        bytes.insert(here, word.begin(), word.end());
        break;
      }
      default:
        bytes.resize(below(8) == 0 ? at : bytes.size());
    }
  }

  std::vector<Bytes> seeds_;
  std::mt19937 random_{20240607};
};

class Fuzz : public testing::TestWithParam<FuzzTarget> {};

TEST_P(Fuzz, ReadsOrRefusesAnything) {
  const std::vector<Bytes> seeds = GetParam().seeds();
  for (const Bytes& seed : seeds) GetParam().read(seed);
  GetParam().read({});
  Mutator mutator(seeds);
  Bytes bytes;
  try {
    for (int i = 0; i < 1000; ++i) GetParam().read(bytes = mutator.next());
  } catch (const std::exception& error) {
    FAIL() << error.what() << "\nof " << std::string(bytes.begin(), bytes.end());
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Fuzz, testing::ValuesIn(fuzz_targets()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace convolt::test
