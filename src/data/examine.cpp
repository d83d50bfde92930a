#include "data/examine.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <string_view>
#include <tuple>

#include "convolt/error.h"
#include "data/parallel_for.h"

namespace convolt {
namespace {

uint64_t hash_of(const RawSample& s) {
  const std::string_view bytes(reinterpret_cast<const char*>(s.content().data()), s.content().size());
  return std::hash<std::string_view>{}(bytes) ^ static_cast<uint64_t>(s.height) << 40 ^
         static_cast<uint64_t>(s.width) << 20;
}

void look_at(const RawSample& sample, Examined& e) {
  e.bytes = static_cast<int64_t>(sample.content().size());
  e.hash = hash_of(sample);
  e.height = sample.height;
  e.width = sample.width;
  if (sample.height > 0) return;
  e.header = read_picture_header(sample.content());
  e.height = e.header->height;
  e.width = e.header->width;
}

Examined examine(const Dataset& data, int64_t i, const DecodeLimits& limits, std::vector<uint8_t>& target) {
  Examined e;
  const std::string name = data.name(i);
  try {
    const RawSample sample = data.read(i);
    e.label = sample.label ? *sample.label : data.label(i);
    look_at(sample, e);
    target.resize(static_cast<size_t>(decoded_size(sample, limits).bytes()));
    const double start = thread_seconds();
    decode(sample, limits, target, name);
    if (thread_seconds() - start > limits.max_seconds)
      throw DataError("took longer to decode than a picture may (" + std::to_string(limits.max_seconds) + " s)");
  } catch (const DataError& error) {
    e.problem = reason_of(error, name);
    if (e.label < 0) try {
        e.label = data.label(i);
      } catch (const Error&) {  // unknown
      }
  }
  return e;
}

bool same_bytes(const Dataset& a, int64_t i, const Dataset& b, int64_t j) {
  try {
    const RawSample x = a.read(i), y = b.read(j);
    return std::ranges::equal(x.content(), y.content()) && x.height == y.height && x.width == y.width &&
           x.channels == y.channels;
  } catch (const DataError&) {
    return false;
  }
}

}  // namespace

std::vector<Examined> examine(const Dataset& data, const DecodeLimits& limits, int threads,
                              const std::function<void(int64_t)>& done) {
  prepare_decoder();
  std::vector<Examined> all(static_cast<size_t>(data.size()));
  std::mutex mutex;
  int64_t count = 0;
  constexpr int64_t kTogether = 16;  // samples that share a buffer
  const int64_t groups = (data.size() + kTogether - 1) / kTogether;
  parallel_for(
      groups, threads,
      [&](int64_t g) {
        std::vector<uint8_t> target;
        const int64_t end = std::min(data.size(), (g + 1) * kTogether);
        for (int64_t i = g * kTogether; i < end; ++i) all[static_cast<size_t>(i)] = examine(data, i, limits, target);
        const std::lock_guard lock(mutex);
        done(count += end - g * kTogether);
      },
      1);
  return all;
}

std::vector<std::vector<SampleOf>> identical_samples(const std::vector<const Dataset*>& sets,
                                                     const std::vector<std::vector<Examined>>& examined) {
  std::map<std::tuple<uint64_t, int64_t>, std::vector<SampleOf>> alike;
  for (size_t s = 0; s < sets.size(); ++s)
    for (size_t i = 0; i < examined[s].size(); ++i)
      if (const Examined& e = examined[s][i]; e.bytes > 0)
        alike[{e.hash, e.bytes}].push_back({s, static_cast<int64_t>(i)});
  std::vector<std::vector<SampleOf>> groups;
  for (auto& [key, candidates] : alike) {
    while (candidates.size() > 1) {
      std::vector<SampleOf> group{candidates[0]}, others;
      for (size_t k = 1; k < candidates.size(); ++k) {
        const auto [set, sample] = candidates[k];
        const bool same = same_bytes(*sets[group[0].set], group[0].sample, *sets[set], sample);
        (same ? group : others).push_back(candidates[k]);
      }
      if (group.size() > 1) groups.push_back(std::move(group));
      candidates = std::move(others);
    }
  }
  std::sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) {
    return std::tie(a[0].set, a[0].sample) < std::tie(b[0].set, b[0].sample);
  });
  return groups;
}

}  // namespace convolt
