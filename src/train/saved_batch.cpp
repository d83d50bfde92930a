#include "train/saved_batch.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "convolt/error.h"
#include "data/encode_png.h"
#include "io/atomic_file.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

template <class Bytes>
void write(const fs::path& path, const Bytes& bytes) {
  AtomicFile file(path.string());
  file.write(std::as_bytes(std::span(bytes)));
  file.commit();
}

// The name of the file that was written.
std::string save_sample(const fs::path& folder, const std::string& stem, const RawSample& sample) {
  if (sample.height == 0) {
    write(folder / stem, sample.content());
    return stem;
  }
  write(folder / (stem + ".png"), encode_png(sample.content(), sample.height, sample.width, sample.channels));
  return stem + ".png";
}

}  // namespace

void save_batch(const std::string& folder, const Dataset& data, std::span<const int64_t> samples, int64_t step,
                const std::string& where) {
  make_output_folder(folder);
  nlohmann::ordered_json pictures = nlohmann::ordered_json::array();
  for (size_t row = 0; row < samples.size(); ++row) {
    if (samples[row] < 0) continue;
    const int32_t label = data.label(samples[row]);
    const bool known = label >= 0 && static_cast<size_t>(label) < data.class_names().size();
    const std::string name = data.name(samples[row]),
                      class_name = known ? data.class_names()[static_cast<size_t>(label)] : std::to_string(label);
    nlohmann::ordered_json picture{
        {"row", row}, {"sample", samples[row]}, {"name", name}, {"label", label}, {"class", class_name}};
    const std::string stem = fmt::format("{:04}-{}-{}", row, class_name, fs::path(name).filename().string());
    try {
      picture["file"] = save_sample(folder, stem, data.read(samples[row]));
    } catch (const DataError& e) {
      picture["error"] = e.what();
    }
    pictures.push_back(std::move(picture));
  }
  const nlohmann::ordered_json list{{"step", step}, {"where", where}, {"pictures", std::move(pictures)}};
  write(fs::path(folder) / "batch.json",
        list.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace convolt
