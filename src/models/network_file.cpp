// The one place that knows networks as JSON; layers only list their attributes.
#include "convolt/network_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "convolt/error.h"
#include "graph/attributes.h"
#include "graph/layer.h"
#include "io/atomic_file.h"
#include "io/names.h"
#include "models/network_json.h"

namespace convolt {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr int kVersion = 1;
constexpr size_t kMostLayers = 10000, kLongestList = 4096;
// Small enough for no product of extents to overflow: an extent or a number of channels; a side of a window or a
// margin; the elements of a value or of all parameters.
constexpr int64_t kLargestNumber = int64_t{1} << 20, kLargestSide = 1024, kMostElements = int64_t{1} << 40;

constexpr std::string_view kInitKinds[] = {"constant", "normal", "uniform", "truncated_normal", "identity"};
constexpr std::string_view kFans[] = {"none", "in", "out"};
constexpr std::string_view kFilters[] = {"nearest", "bilinear", "bicubic"};
constexpr std::string_view kRecipes[] = {"digits", "cifar", "imagenet"};

// What a file says besides its layers.
struct Header {
  ModelInfo info;
  std::string input = "image", output;
  Size2 size;
};

Attributes input_attributes(Header& h) {
  return {{"name", &h.input}, {"size", &h.size}, {"channels", &h.info.channels}};
}
Attributes preprocessing_attributes(Header& h) {
  return {{"recipe", enum_attribute(h.info.recipe, kRecipes)},
          {"resize", &h.info.resize},
          {"mean", &h.info.mean},
          {"std", &h.info.std},
          {"interpolation", enum_attribute(h.info.interpolation, kFilters)}};
}
Attributes init_attributes(Init& init) {
  return {
      {"kind", enum_attribute(init.kind, kInitKinds)}, {"gain", &init.gain}, {"fan", enum_attribute(init.fan, kFans)}};
}

// Writing.

// The shortest decimal that is this float.
double shortest(float value) { return std::stod(fmt::format("{}", value)); }

ordered_json to_json(const Attribute& attribute);

struct Write {
  ordered_json operator()(const bool* v) const { return *v; }
  ordered_json operator()(const int* v) const { return *v; }
  ordered_json operator()(const int64_t* v) const { return *v; }
  ordered_json operator()(const float* v) const { return shortest(*v); }
  ordered_json operator()(const std::string* v) const { return *v; }
  ordered_json operator()(const std::vector<int64_t>* v) const { return *v; }
  ordered_json operator()(const EnumAttribute& v) const { return v.names[*v.value]; }
  ordered_json operator()(const Size2* v) const { return v->h == v->w ? ordered_json(v->h) : ordered_json{v->h, v->w}; }
  ordered_json operator()(const Padding* v) const {
    if (v->top != v->bottom || v->left != v->right) return {v->top, v->left, v->bottom, v->right};
    return v->top == v->left ? ordered_json(v->top) : ordered_json{v->top, v->left};
  }
  ordered_json operator()(const std::array<float, 3>* v) const {
    return {shortest((*v)[0]), shortest((*v)[1]), shortest((*v)[2])};
  }
  ordered_json operator()(const Init* v) const {
    Init copy = *v;
    ordered_json object;
    for (const Attribute& a : init_attributes(copy)) object[std::string(a.name)] = to_json(a);
    return object;
  }
};
ordered_json to_json(const Attribute& attribute) { return std::visit(Write{}, attribute.value); }

// The attributes that are not what they are where nothing is said.
void write_attributes(ordered_json& object, const Attributes& attributes, const Attributes& defaults) {
  for (size_t i = 0; i < attributes.size(); ++i)
    if (ordered_json value = to_json(attributes[i]); value != to_json(defaults[i]))
      object[std::string(attributes[i].name)] = std::move(value);
}

// The layer that makes the logits: nothing with parameters lies between it and the output.
int head_of(const Graph& graph) {
  int head = graph.output_layer();
  while (head > 0 && graph.layers()[static_cast<size_t>(head)].params.empty())
    head = graph.layers()[static_cast<size_t>(head)].inputs[0];
  return head;
}

ordered_json layer_json(const Graph& graph, int index, bool head) {
  const Layer& layer = graph.layers()[static_cast<size_t>(index)];
  const LayerDef* known = find_layer_kind(layer.def->kind);
  if (known != layer.def)
    throw UsageError(
        fmt::format("layer '{}' of kind '{}' has no description in network files", layer.name, layer.def->kind));
  ordered_json object{{"kind", layer.def->kind}, {"name", layer.name}};
  if (layer.inputs != std::vector<int>{index - 1})
    for (const int input : layer.inputs) object["inputs"].push_back(graph.layers()[static_cast<size_t>(input)].name);
  if (layer.def->attributes == nullptr) return object;
  std::any attributes = layer.attributes, defaults;
  write_attributes(object, layer.def->attributes(attributes), layer.def->attributes(defaults));
  for (const char* outputs : {"units", "channels"})
    if (head && object.contains(outputs) && object[outputs] == graph.classes()) object[outputs] = "classes";
  return object;
}

// Reading.

[[noreturn]] void fail(const std::string& where, const std::string& expected, const json& found) {
  constexpr size_t kShown = 60;
  std::string text = found.dump();
  if (text.size() > kShown) text = text.substr(0, kShown) + "...";
  throw FormatError(fmt::format("{}: expected {}, found {}", where, expected, text));
}

int64_t read_integer(const json& j, const std::string& where, int64_t limit) {
  const bool fits = j.is_number_unsigned()  ? j.get<uint64_t>() <= static_cast<uint64_t>(limit)
                    : j.is_number_integer() ? j.get<int64_t>() >= -limit
                                            : false;
  if (!fits)
    fail(where, j.is_number_integer() ? fmt::format("a whole number from -{} to {}", limit, limit) : "a whole number",
         j);
  return j.get<int64_t>();
}

float read_float(const json& j, const std::string& where) {
  if (!j.is_number() || !std::isfinite(j.get<float>())) fail(where, "a number", j);
  return j.get<float>();
}

void read_attributes(const json& object, const Attributes& attributes, const std::string& where, int64_t classes,
                     std::initializer_list<std::string_view> others = {});

struct Read {
  const json& j;
  std::string where;  // "net.json: layer 3 'conv1': 'kernel'"
  int64_t classes;    // what "classes" stands for

  void operator()(bool* v) const {
    if (!j.is_boolean()) fail(where, "true or false", j);
    *v = j.get<bool>();
  }
  void operator()(int* v) const { *v = static_cast<int>(read_integer(j, where, kLargestNumber)); }
  void operator()(int64_t* v) const {
    if (j.is_string() && j != "classes") fail(where, "a whole number or \"classes\"", j);
    *v = j.is_string() ? classes : read_integer(j, where, kLargestNumber);
  }
  void operator()(float* v) const { *v = read_float(j, where); }
  void operator()(std::string* v) const {
    if (!j.is_string() || j.get_ref<const std::string&>().empty() ||
        j.get_ref<const std::string&>().size() > kLongestName)
      fail(where, fmt::format("a text of 1 to {} bytes", kLongestName), j);
    *v = j.get<std::string>();
  }
  void operator()(const EnumAttribute& v) const {
    const auto name = std::find_if(v.names.begin(), v.names.end(), [&](std::string_view n) { return j == n; });
    if (name == v.names.end()) fail(where, fmt::format("one of {}", fmt::join(v.names, ", ")), j);
    *v.value = static_cast<uint8_t>(name - v.names.begin());
  }
  // Whole numbers: one, or a list of one of these lengths.
  std::vector<int> sides(std::initializer_list<size_t> lengths) const {
    if (!j.is_array()) return {static_cast<int>(read_integer(j, where, kLargestSide))};
    if (std::find(lengths.begin(), lengths.end(), j.size()) == lengths.end())
      fail(where, fmt::format("a whole number or a list of {}", fmt::join(lengths, " or ")), j);
    std::vector<int> n;
    for (const json& side : j) n.push_back(static_cast<int>(read_integer(side, where, kLargestSide)));
    return n;
  }
  void operator()(Size2* v) const {
    const auto n = sides({2});
    *v = n.size() == 1 ? Size2(n[0]) : Size2(n[0], n[1]);
  }
  void operator()(Padding* v) const {
    const auto n = sides({2, 4});
    *v = n.size() == 1 ? Padding(n[0]) : n.size() == 2 ? Padding(n[0], n[1]) : Padding(n[0], n[1], n[2], n[3]);
  }
  void operator()(std::array<float, 3>* v) const {
    if (!j.is_array() || j.size() != 3) fail(where, "a list of 3 numbers", j);
    for (size_t i = 0; i < 3; ++i) (*v)[i] = read_float(j[i], where);
  }
  void operator()(std::vector<int64_t>* v) const {
    if (!j.is_array() || j.empty() || j.size() > kLongestList)
      fail(where, fmt::format("a list of 1 to {} whole numbers", kLongestList), j);
    v->clear();
    for (const json& n : j) v->push_back(read_integer(n, where, kLargestNumber));
  }
  // One with a kind is whole, and takes nothing from the layer's own.
  void operator()(Init* v) const {
    const bool whole = j.is_object() && j.contains("kind");
    if (whole) *v = Init{};
    read_attributes(j, init_attributes(*v), where, classes);
    if (whole && !j.contains("gain") && v->kind != Init::Kind::constant) fail(where, "'gain' beside 'kind'", j);
  }
};

// Fills what the object says; a key that is neither an attribute nor one of `others` is an error.
void read_attributes(const json& object, const Attributes& attributes, const std::string& where, int64_t classes,
                     std::initializer_list<std::string_view> others) {
  if (!object.is_object()) fail(where, "an object {...}", object);
  for (const auto& [key, value] : object.items()) {
    if (std::find(others.begin(), others.end(), key) != others.end()) continue;
    const auto a =
        std::find_if(attributes.begin(), attributes.end(), [&key = key](const Attribute& x) { return x.name == key; });
    if (a != attributes.end()) {
      std::visit(Read{value, fmt::format("{}: '{}'", where, key), classes}, a->value);
      continue;
    }
    std::vector<std::string> known(others.begin(), others.end());
    for (const Attribute& x : attributes) known.emplace_back(x.name);
    const std::string near = nearest_name(key, known);
    throw FormatError(fmt::format("{}: unknown '{}'{}; it takes {}", where, key.substr(0, kLongestName),
                                  near.empty() ? "" : fmt::format(", did you mean '{}'?", near),
                                  fmt::join(known, ", ")));
  }
}

const json& member(const json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) throw FormatError(fmt::format("{}: it lacks '{}'", where, key));
  return *found;
}

// Builds the layers of one file, one after the other.
class Builder {
public:
  Builder(Graph& graph, const std::string& file, int64_t classes) : graph_(graph), file_(file), classes_(classes) {}

  void input(const std::string& name, Size2 size, int channels) {
    where_ = file_ + ": 'input'";
    values_.emplace(name, guarded([&] { return graph_.input(name, {size.h, size.w, channels}); }));
    last_ = values_.begin()->second;
    check_limits();
  }

  void layer(const json& j, size_t index) {
    where_ = fmt::format("{}: layer {}", file_, index);
    if (!j.is_object()) fail(where_, "an object {...}", j);
    std::string kind, name;
    const Attributes own{{"kind", &kind}, {"name", &name}};
    std::visit(Read{member(j, "kind", where_), where_ + ": 'kind'", classes_}, own[0].value);
    if (j.contains("name")) std::visit(Read{j["name"], where_ + ": 'name'", classes_}, own[1].value);
    if (!name.empty()) where_ += " '" + name + "'";
    const LayerDef& def = definition(kind);
    std::any attributes;
    read_attributes(j, def.attributes != nullptr ? def.attributes(attributes) : Attributes{}, where_, classes_,
                    {"kind", "name", "inputs"});
    const std::vector<Value> inputs = inputs_of(j);
    last_ = guarded([&] { return graph_.append(def, name, inputs, std::move(attributes)); });
    values_.emplace(graph_.layers().back().name, last_);
    check_limits();
  }

  void output(const std::string& name) {
    where_ = file_ + ": 'output'";
    const Value value = name.empty() ? last_ : value_named(name);
    guarded([&] {
      graph_.output(value);
      return value;
    });
    if (graph_.classes() != classes_)
      throw FormatError(
          fmt::format("{}: expected {} outputs, found {}; give the last layer \"classes\" in place of "
                      "a number, so that it follows the data set",
                      file_, classes_, graph_.classes()));
  }

private:
  const LayerDef& definition(const std::string& kind) const {
    if (const LayerDef* def = find_layer_kind(kind)) return *def;
    std::vector<std::string> known;
    for (const LayerDef* def : all_layer_kinds()) known.emplace_back(def->kind);
    const std::string near = nearest_name(kind, known);
    throw FormatError(fmt::format("{}: unknown kind '{}'{} (known: {})", where_, kind,
                                  near.empty() ? "" : fmt::format(", did you mean '{}'?", near),
                                  fmt::join(known, ", ")));
  }

  Value value_named(const std::string& name) const {
    if (const auto found = values_.find(name); found != values_.end()) return found->second;
    std::vector<std::string> known;
    for (const auto& [n, value] : values_) known.push_back(n);
    const std::string near = known.size() <= 1000 ? nearest_name(name, known) : "";
    throw FormatError(fmt::format("{}: no layer before it is named '{}'{}", where_, name,
                                  near.empty() ? "" : fmt::format(", did you mean '{}'?", near)));
  }

  std::vector<Value> inputs_of(const json& j) const {
    if (!j.contains("inputs")) return {last_};
    const json& names = j["inputs"];
    if (!names.is_array() || names.empty() || names.size() > kLongestList)
      fail(where_ + ": 'inputs'", fmt::format("a list of 1 to {} names of layers", kLongestList), names);
    std::vector<Value> values;
    for (const json& name : names) {
      if (!name.is_string()) fail(where_ + ": 'inputs'", "names of layers", name);
      values.push_back(value_named(name.get<std::string>()));
    }
    return values;
  }

  // Shape and usage errors of the graph become errors of the file.
  template <class F>
  Value guarded(F f) const {
    try {
      return f();
    } catch (const ShapeError& e) {
      throw FormatError(fmt::format("{}: {}", where_, e.what()));
    } catch (const UsageError& e) {
      throw FormatError(fmt::format("{}: {}", where_, e.what()));
    }
  }

  void check_limits() {
    const Layer& layer = graph_.layers().back();
    const Shape& s = layer.shape;
    bool fits = true;
    for (int i = 0; i < s.rank(); ++i)
      fits = fits && s[i] >= 1 && s[i] <= (s.rank() > 1 ? kLargestNumber : kMostElements);
    for (const int p : layer.params) parameters_ += graph_.params()[static_cast<size_t>(p)].shape.elements();
    if (!fits || s.elements() > kMostElements || parameters_ > kMostElements)
      throw FormatError(
          fmt::format("{}: its output {} or the parameters so far are beyond what a network may have: "
                      "extents of {}, {} elements",
                      where_, s.to_string(), kLargestNumber, kMostElements));
  }

  Graph& graph_;
  const std::string& file_;
  int64_t classes_, parameters_ = 0;
  std::map<std::string, Value> values_;
  Value last_;
  std::string where_;
};

Header read_header(const json& j, const std::string& file) {
  Header h{.info = {.name = file, .summary = "", .size = 224, .recipe = ModelInfo::Recipe::imagenet}};
  int version = 0;
  read_attributes(j,
                  {{"convolt_network", &version},
                   {"summary", &h.info.summary},
                   {"classes", &h.info.classes},
                   {"output", &h.output}},
                  file, 0, {"input", "preprocessing", "layers"});
  if (version != kVersion)
    throw FormatError(fmt::format("{}: expected \"convolt_network\": {}, found {}", file, kVersion,
                                  j.contains("convolt_network") ? std::to_string(version) : "none"));
  h.size = 224;
  if (j.contains("input")) read_attributes(j["input"], input_attributes(h), file + ": 'input'", 0);
  if (h.size.h < 1 || h.size.w < 1)
    throw FormatError(fmt::format("{}: 'input': 'size': expected at least 1, found {} x {}", file, h.size.h, h.size.w));
  h.info.size = h.info.resize = h.size.h;
  h.info.width = h.size.w;
  if (j.contains("preprocessing"))
    read_attributes(j["preprocessing"], preprocessing_attributes(h), file + ": 'preprocessing'", 0);
  if (h.info.resize < 1)
    throw FormatError(fmt::format("{}: 'preprocessing': 'resize': expected at least 1, found {}", file, h.info.resize));
  for (const float s : h.info.std)
    if (!(s > 0))
      throw FormatError(fmt::format("{}: 'preprocessing': 'std': expected numbers above 0, found {}", file, s));
  const json& layers = member(j, "layers", file);
  if (!layers.is_array() || layers.empty() || layers.size() > kMostLayers)
    throw FormatError(fmt::format("{}: 'layers': expected a list of 1 to {} layers", file, kMostLayers));
  return h;
}

void build(Graph& graph, const ModelInfo& info, const ModelOptions& o) {
  const json j = parse_network_json(info.name, info.network);
  const Header header = read_header(j, info.name);
  Builder builder(graph, info.name, o.classes);
  const Size2 size(o.height > 0 ? o.height : header.size.h, o.width > 0 ? o.width : header.size.w);
  builder.input(header.input, size, o.channels);
  size_t index = 1;
  for (const json& layer : j["layers"]) builder.layer(layer, index++);
  builder.output(header.output);
}

}  // namespace

std::string write_network(const Graph& graph, const ModelInfo& info) {
  Header h{.info = info, .input = graph.layers()[0].name};
  const Shape& in = graph.layers()[0].shape;
  h.size = {static_cast<int>(in[0]), static_cast<int>(in[1])};
  h.info.channels = static_cast<int>(in[2]);
  ordered_json input, preprocessing;
  for (const Attribute& a : input_attributes(h)) input[std::string(a.name)] = to_json(a);
  for (const Attribute& a : preprocessing_attributes(h)) preprocessing[std::string(a.name)] = to_json(a);

  std::string text = fmt::format("{{\"convolt_network\": {},\n", kVersion);
  if (!info.summary.empty()) text += fmt::format(" \"summary\": {},\n", ordered_json(info.summary).dump());
  text += fmt::format(" \"input\": {},\n \"classes\": {},\n", input.dump(), graph.classes());
  text += fmt::format(" \"preprocessing\": {},\n \"layers\": [", preprocessing.dump());
  const int head = head_of(graph);
  for (int i = 1; i < static_cast<int>(graph.layers().size()); ++i)
    text += (i > 1 ? ",\n  " : "\n  ") + layer_json(graph, i, i == head).dump();
  const Layer& output = graph.layers()[static_cast<size_t>(graph.output_layer())];
  return text + fmt::format("],\n \"output\": {}}}\n", ordered_json(output.name).dump());
}

ModelInfo parse_network(const std::string& name, const std::string& text) {
  const json j = parse_network_json(name, text);
  Header header = read_header(j, name);
  header.info.network = text;
  header.info.build = build;
  Graph graph;  // finds what else is wrong
  build(graph, header.info,
        {.classes = header.info.classes,
         .height = header.size.h,
         .width = header.size.w,
         .channels = header.info.channels});
  return header.info;
}

ModelInfo read_network(const std::string& path) {
  const std::vector<uint8_t> bytes = read_file(path, kLargestNetworkFile);
  return parse_network(path, {bytes.begin(), bytes.end()});
}

}  // namespace convolt
