#include "fuzz/targets.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "conv/tuning_file.h"
#include "convolt/checkpoint.h"
#include "convolt/dataset.h"
#include "convolt/error.h"
#include "convolt/layers.h"
#include "convolt/network_file.h"
#include "data/packed_format.h"
#include "fuzz/archive_targets.h"
#include "fuzz/demand.h"
#include "fuzz/index_target.h"
#include "fuzz/picture_target.h"
#include "io/config_file.h"
#include "io/safetensors.h"
#include "support/temp_folder.h"

namespace convolt::test {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes bytes_of(const std::string& text) { return {text.begin(), text.end()}; }
std::string text_of(std::span<const uint8_t> bytes) { return {bytes.begin(), bytes.end()}; }

// Where a check of the targets fails: neither an exception, which a reader may throw, nor an assertion, which gtest
// would only count.
const TempFolder& folder() {
  static const TempFolder made;
  return made;
}

// A network with its optimizer, as a checkpoint is read into.
struct Trained {
  std::unique_ptr<Context> context = Context::create(Device::cpu());
  Graph graph;
  Params params{*context, built(graph), 1};
  Optimizer optimizer{params, {.kind = OptimizerKind::adam, .ema_decay = 0.9}};

  static Graph& built(Graph& g) {
    const Value x = relu(batch_norm(conv2d(g.input("image", {4, 4, 3}), 2, {.name = "conv"}), {.name = "bn"}));
    g.output(linear(global_avg_pool(x), 3, {.name = "fc"}));
    return g;
  }
};

std::vector<Bytes> checkpoint_seeds() {
  Trained t;
  const std::string path = folder().path("seed");
  const TrainingState state{.step = 7, .device = "cpu"};
  save_checkpoint(path, t.params, {.model = "lenet", .classes = 3, .height = 4, .width = 4, .configuration = "{}"},
                  &t.optimizer, &state);
  return {bytes_of(contents(path)), bytes_of(contents(CONVOLT_SOURCE_DIR "/tests/io/golden/python.safetensors"))};
}

void read_checkpoint(std::span<const uint8_t> bytes) {
  static Trained into;
  const std::string path = folder().path("checkpoint");
  put_contents(path, text_of(bytes));
  // Each by itself: what one refuses another may read.
  const auto refusing = [](auto read) {
    try {
      read();
    } catch (const FormatError&) {
    } catch (const UsageError&) {  // a network that is not known
    }
  };
  refusing([&] {
    const SafeTensors file = SafeTensors::read(path);
    size_t total = 0;
    for (const SafeTensor& tensor : file.tensors()) {
      total += tensor.bytes.size();
      if (tensor.dtype.find('F') != std::string::npos) demand(tensor.to_floats().size() <= bytes.size());
      demand(file.find(tensor.name) == &tensor);
    }
    demand(total <= bytes.size());
  });
  refusing([&] { model_of(read_card(path)); });
  refusing([&] { load_weights(path, into.params, {.strict = false}); });
  refusing([&] { load_training(path, into.params, into.optimizer); });
}

std::vector<Bytes> network_seeds() {
  std::vector<Bytes> seeds;
  for (const char* name : {"lenet", "squeezenet1_1"}) {
    Graph graph;
    const ModelInfo info = find_model(name);
    build_model(graph, info, {.classes = 0, .channels = info.channels});
    seeds.push_back(bytes_of(write_network(graph, info)));
  }
  seeds.push_back(bytes_of(R"({"convolt_network": 1, "input": {"size": [8, 9]}, "layers": [
    {"kind": "conv2d", "name": "a", "channels": 8, "kernel": [1, 3], "padding": [0, 1, 0, 1], "groups": 1},
    {"kind": "split", "name": "s", "parts": [4, 4]}, {"kind": "split_part", "place": 1},
    {"kind": "conv_transpose2d", "channels": 4, "kernel": 2, "stride": 2, "output_padding": 1, "dilation": 1},
    {"kind": "upsample", "size": 5, "mode": "bilinear"}, {"kind": "pad", "padding": 1, "value": 0.5},
    {"kind": "group_norm", "groups": 2}, {"kind": "leaky_relu", "slope": 0.1},
    {"kind": "max_pool", "kernel": 3, "stride": 2, "ceil_mode": true}, {"kind": "adaptive_avg_pool", "size": 2},
    {"kind": "flatten"}, {"kind": "linear", "units": "classes", "init": {"kind": "normal", "gain": 1, "fan": "in"}}]})"));
  return seeds;
}

void read_network_text(std::span<const uint8_t> bytes) {
  try {
    const ModelInfo info = parse_network("fuzz.json", text_of(bytes));
    Graph graph;
    build_model(graph, info, {.classes = info.classes, .channels = info.channels});
    parse_network("again.json", write_network(graph, info));
  } catch (const FormatError&) {
  }
}

std::vector<Bytes> configuration_seeds() {
  return {
      bytes_of("# a run\nmodel = \"resnet20\"\nepochs=10\nlr=0.1 # rate\nbetas = [0.9, 0.999]\n"
               "param-group=[\"bn:wd=0\", 'fc:lr=10']\nnesterov=true\nbatch-size=0x80\na=1_000\n[train]\nb=1e3\n"),
      bytes_of("data-path='C:\\x'\r\nopt=\"ad\\\"am\\u00e4\"\r\nclass-weights=[\r\n 1,\r\n inf]\r\nd=1979-05-27\r\n")};
}

// What is read and written again reads back the same.
void read_configuration(std::span<const uint8_t> bytes) {
  try {
    for (const ConfigEntry& entry : parse_config(text_of(bytes), "fuzz.toml")) {
      ConfigEntry plain = entry;
      plain.key = "key";
      const auto again = parse_config(format_config(plain), "again.toml");
      demand(again.size() == 1 && again[0].values == entry.values && again[0].array == entry.array);
    }
  } catch (const FormatError&) {
  }
}

// The file of labels begins after as many bytes of images as the first two bytes say.
Bytes idx_pair(const Bytes& images, const Bytes& labels) {
  Bytes all(2 + images.size() + labels.size());
  all[0] = static_cast<uint8_t>(images.size() >> 8);
  all[1] = static_cast<uint8_t>(images.size());
  std::copy(labels.begin(), labels.end(), std::copy(images.begin(), images.end(), all.begin() + 2));
  return all;
}

std::vector<Bytes> idx_seeds() {
  Bytes images{0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5}, labels{0, 0, 8, 1, 0, 0, 0, 3, 2, 0, 1};
  for (int i = 0; i < 3 * 4 * 5; ++i) images.push_back(static_cast<uint8_t>(i * 37));
  const Bytes packed{0x1f, 0x8b, 8,    0,    0,    0,    0,    0,    2,    3,    0x63, 0x60, 0xe0, 0x60, 0x64, 0x60,
                     0x60, 0x60, 0x66, 0x62, 0x60, 0x04, 0x00, 0x7c, 0x58, 0xc3, 0x7a, 0x0b, 0,    0,    0};
  return {idx_pair(images, labels), idx_pair(images, packed)};
}

void read_samples(const Dataset& set) {
  for (int64_t i = 0; i < std::min<int64_t>(set.size(), 3); ++i) {
    const RawSample sample = set.read(i);
    demand(static_cast<int64_t>(sample.content().size()) == int64_t{sample.height} * sample.width * sample.channels);
    demand(set.label(i) >= 0 && static_cast<size_t>(set.label(i)) < set.class_names().size());
  }
}

void read_packed_samples(const Dataset& set) {
  for (int64_t i = 0; i < std::min<int64_t>(set.size(), 3); ++i) {
    const RawSample sample = set.read(i);
    const auto extent = set.extent(i);
    demand(sample.height == 0 || (sample.height == extent->height && sample.width == extent->width));
    demand(sample.height == 0 ||
           static_cast<int64_t>(sample.content().size()) == int64_t{sample.height} * sample.width * sample.channels);
    demand(set.label(i) >= 0 && static_cast<size_t>(set.label(i)) < set.class_names().size());
    demand(!set.name(i).empty());
  }
}

void read_idx(std::span<const uint8_t> bytes) {
  if (bytes.size() < 2) return;
  const size_t cut = std::min(bytes.size(), size_t{2} + bytes[0] * size_t{256} + bytes[1]);
  put_contents(folder().path("train-images-idx3-ubyte"), text_of(bytes.subspan(2, cut - 2)));
  put_contents(folder().path("train-labels-idx1-ubyte"), text_of(bytes.subspan(cut)));
  try {
    read_samples(*open_dataset({.path = folder().path(), .format = "idx"}));
  } catch (const DataError&) {
  }
}

// Pictures and labels behind each other, as of IDX.
std::vector<Bytes> numpy_seeds() {
  const auto array = [](const std::string& description, size_t bytes) {
    std::string header = "{'descr': '" + description + ", }\n";
    Bytes file{0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, static_cast<uint8_t>(header.size()), 0};
    file.insert(file.end(), header.begin(), header.end());
    file.resize(file.size() + bytes, 1);
    return file;
  };
  const Bytes labels = array("<i8', 'fortran_order': False, 'shape': (2,)", 16);
  return {idx_pair(array("|u1', 'fortran_order': False, 'shape': (2, 3, 4, 3)", 72), labels),
          idx_pair(array("|u1', 'fortran_order': False, 'shape': (2, 3, 4)", 24), labels)};
}

void read_numpy(std::span<const uint8_t> bytes) {
  if (bytes.size() < 2) return;
  const size_t cut = std::min(bytes.size(), size_t{2} + bytes[0] * size_t{256} + bytes[1]);
  put_contents(folder().path("x_train.npy"), text_of(bytes.subspan(2, cut - 2)));
  put_contents(folder().path("y_train.npy"), text_of(bytes.subspan(cut)));
  try {
    read_samples(*open_dataset({.path = folder().path(), .format = "numpy"}));
  } catch (const DataError&) {
  }
}

std::vector<Bytes> cifar_seeds() {
  Bytes two(2 * 3073);
  for (size_t i = 0; i < two.size(); ++i) two[i] = static_cast<uint8_t>(i % 3073 == 0 ? i % 10 : i * 7);
  return {two, Bytes(two.begin(), two.begin() + 3073)};
}

void read_cifar(std::span<const uint8_t> bytes) {
  const std::string path = folder().path("records.bin");
  put_contents(path, text_of(bytes));
  try {
    read_samples(*open_dataset({.path = path, .format = "cifar10"}));
  } catch (const DataError&) {
  }
}

// Behind the number of a name, since that says what form a list has.
constexpr const char* kLists[] = {"list.csv", "list.tsv", "list.jsonl", "list"};
std::vector<Bytes> manifest_seeds() {
  const std::pair<uint8_t, const char*> lists[] = {
      {0, "path,label,split,weight\r\na/1.jpg,cat,train,1\r\n\"b, 2.jpg\",\"do\"\"g\",val,0.5\r\n"},
      {1, "filename\tclass\n1\t10\n2\t3\n"},
      {2, "{\"image\": \"1\", \"target\": 3, \"weight\": 2e0}\n{\"image\": \"2\", \"target\": \"x\"}\n"},
      {3, "image,label\nx,y\n"}};
  std::vector<Bytes> seeds;
  for (const auto& [form, text] : lists) {
    seeds.push_back({form});
    for (const char* c = text; *c != 0; ++c) seeds.back().push_back(static_cast<uint8_t>(*c));
  }
  return seeds;
}

void read_manifest(std::span<const uint8_t> bytes) {
  if (bytes.empty()) return;
  const std::string path = folder().path(kLists[bytes[0] % std::size(kLists)]);
  put_contents(path, text_of(bytes.subspan(1)));
  for (const Split split : {Split::train, Split::validation}) try {
      const auto set = open_dataset({.path = path, .format = "manifest", .split = split});
      for (int64_t i = 0; set && i < set->size(); ++i) {
        demand(set->label(i) >= 0 && static_cast<size_t>(set->label(i)) < set->class_names().size());
        demand(set->weight(i) > 0 && !set->name(i).empty());
      }
    } catch (const DataError&) {
    }
}

// A file in training and pixels in validation.
std::vector<Bytes> packed_seeds() {
  PackedEntry file{.bytes = 5, .name_bytes = 3, .height = 2, .width = 2};
  file.offset = sizeof(PackedHeader);
  PackedEntry pixels{.bytes = 6, .name = 3, .name_bytes = 1, .label = 1, .height = 1, .width = 2, .split = 1};
  pixels.offset = file.offset + kPackedAlignment;
  pixels.kind = PackedKind::pixels;
  pixels.channels = 3;
  const std::vector<PackedEntry> entries{file, pixels};
  const auto index = write_packed_index(
      entries, {.classes = {"a", "b"}, .metadata = {{"source", "x"}}, .left_out = {{"y", "is broken"}}}, "1.pz");
  Bytes set(pixels.offset + kPackedAlignment);
  PackedHeader header;
  header.samples = entries.size();
  header.index_offset = set.size();
  header.index_bytes = index.size();
  std::memcpy(set.data(), &header, sizeof header);
  set.insert(set.end(), index.begin(), index.end());
  return {set};
}

// The checksums would refuse all that is not a seed, so they are made to fit: those of header, index and, as far as
// there are entries, samples.
void read_packed(std::span<const uint8_t> bytes) {
  Bytes set(bytes.begin(), bytes.end());
  if (set.size() >= sizeof(PackedHeader)) {
    PackedHeader header;
    std::memcpy(&header, set.data(), sizeof header);
    const size_t index = std::min<size_t>(header.index_offset, set.size());
    for (size_t at = index, left = std::min<size_t>(header.samples, 4);
         left > 0 && set.size() - at >= sizeof(PackedEntry); --left, at += sizeof(PackedEntry)) {
      PackedEntry e;
      std::memcpy(&e, set.data() + at, sizeof e);
      if (e.offset <= set.size() && e.bytes <= set.size() - e.offset)
        e.hash = packed_hash(std::span(set).subspan(e.offset, e.bytes));
      std::memcpy(set.data() + at, &e, sizeof e);
    }
    header.index_hash = packed_hash(std::span(set).subspan(index));
    seal(header);
    std::memcpy(set.data(), &header, sizeof header);
  }
  const std::string path = folder().path("set.cvt");
  put_contents(path, text_of(set));
  for (const Split split : {Split::train, Split::validation}) {
    try {
      const auto opened = open_dataset({.path = path, .format = "packed", .split = split});
      if (opened) read_packed_samples(*opened);
    } catch (const DataError&) {
    }
  }
}

std::vector<Bytes> tuning_seeds() {
  return {bytes_of(format_tuning({{{"card, driver", "fprop n1"}, {{"engine 1", {1234, true}}, {"engine 2", {}}}},
                                  {{"another", "dgrad n1"}, {{"engine 1", {.nanoseconds = 99}}}}})),
          bytes_of(format_tuning({}))};
}

// The checksum would refuse all that is not a seed: the lines are read behind one that fits. What is read and written
// again reads back the same.
void read_tuning_text(std::span<const uint8_t> bytes) {
  const std::string text = text_of(bytes);
  const std::string lines = text.substr(std::min(text.size(), text.find('\n') + 1));
  for (const std::string& file : {text, with_first_line(lines)}) {
    try {
      const TuningTable table = parse_tuning(file, "fuzz");
      demand(parse_tuning(format_tuning(table), "again") == table);
    } catch (const FormatError&) {
    }
  }
}

}  // namespace

const std::vector<FuzzTarget>& fuzz_targets() {
  static const std::vector<FuzzTarget> targets{{"checkpoint", read_checkpoint, checkpoint_seeds},
                                               {"network", read_network_text, network_seeds},
                                               {"configuration", read_configuration, configuration_seeds},
                                               {"idx", read_idx, idx_seeds},
                                               {"cifar", read_cifar, cifar_seeds},
                                               {"packed", read_packed, packed_seeds},
                                               {"numpy", read_numpy, numpy_seeds},
                                               {"manifest", read_manifest, manifest_seeds},
                                               {"tuning", read_tuning_text, tuning_seeds},
                                               {"index", read_index, index_seeds},
                                               {"picture", read_picture, picture_seeds},
                                               {"tar", read_tar, tar_seeds},
                                               {"zip", read_zip, zip_seeds}};
  return targets;
}

}  // namespace convolt::test
