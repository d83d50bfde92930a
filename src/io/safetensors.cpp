#include "io/safetensors.h"

#include <fmt/format.h>
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "convolt/error.h"
#include "io/atomic_file.h"

namespace convolt {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kPrefixBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference implementation
constexpr const char* kMetadata = "__metadata__";
constexpr const char* kDTypes = "F64, I64, F32, I32, F16, BF16 or U8";

// Bytes of one element, 0 for a dtype we do not know.
int64_t element_size(std::string_view dtype) {
  if (dtype == "F64" || dtype == "I64") return 8;
  if (dtype == "F32" || dtype == "I32") return 4;
  if (dtype == "F16" || dtype == "BF16") return 2;
  return dtype == "U8" ? 1 : 0;
}

// False when the product does not fit or an extent is negative.
bool byte_size(const std::vector<int64_t>& shape, int64_t size_of_element, int64_t& bytes) {
  bytes = size_of_element;
  for (const int64_t extent : shape)
    if (extent < 0 || __builtin_mul_overflow(bytes, extent, &bytes)) return false;
  return true;
}

// Text out of a file, fit for a message: quoted, escaped and short.
std::string in_quotes(std::string_view text) {
  constexpr size_t kLongest = 100;
  return Json(std::string(text.substr(0, kLongest))).dump(-1, ' ', true, Json::error_handler_t::replace);
}

std::string shown(const Json& value) {
  return value.is_structured() ? std::string("an ") + value.type_name()
                               : in_quotes(value.is_string() ? value.get_ref<const std::string&>() : value.dump());
}

class HeaderParser {
public:
  HeaderParser(const std::string& path, std::string_view header, std::span<const std::byte> data)
      : path_(path), header_(header), data_(data) {}

  void parse(std::vector<SafeTensor>& tensors, std::map<std::string, std::string>& metadata) const {
    const Json root = parse_json();
    for (const auto& [name, entry] : root.items()) {
      if (name == kMetadata)
        metadata = parse_metadata(entry);
      else
        tensors.push_back(parse_tensor(name, entry));
    }
    // Empty tensors come before the one that begins where they lie.
    std::ranges::stable_sort(tensors, {},
                             [](const SafeTensor& t) { return std::pair(t.bytes.data(), t.bytes.size()); });
    check_coverage(tensors);
  }

private:
  [[noreturn]] void fail(const std::string& what, const std::string& expected, const std::string& found) const {
    throw FormatError(fmt::format("{}: {}: expected {}, found {}", path_, what, expected, found));
  }

  // nlohmann-json keeps the last of equal keys and takes a NUL for the end: both are refused here.
  Json parse_json() const {
    if (!header_.starts_with('{')) fail("header", "a JSON object", in_quotes(header_.substr(0, 1)));
    if (header_.find('\0') != std::string_view::npos) fail("header", "JSON", "a NUL byte");
    std::vector<std::set<std::string>> keys;  // of the open objects, by depth
    const auto check = [&](int depth, Json::parse_event_t event, Json& parsed) {
      const auto level = static_cast<size_t>(depth);
      const bool opens = event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start;
      if (opens && depth > 2) fail("header", "objects and arrays at most 3 deep", "a deeper one");
      if (event == Json::parse_event_t::object_start) keys.resize(level), keys.emplace_back();
      if (event == Json::parse_event_t::key && !keys[level - 1].insert(parsed.get<std::string>()).second)
        fail("header", "every name once", shown(parsed) + " twice");
      return true;
    };
    try {
      return Json::parse(header_, check);
    } catch (const Json::parse_error& error) {
      fail("header", "JSON", fmt::format("an error at byte {}", error.byte));
    } catch (const Json::out_of_range&) {
      fail("header", "JSON", "a number that no double can hold");
    }
  }

  std::map<std::string, std::string> parse_metadata(const Json& entry) const {
    if (!entry.is_object()) fail(kMetadata, "an object", shown(entry));
    std::map<std::string, std::string> metadata;
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) fail(fmt::format("{} {}", kMetadata, in_quotes(key)), "a string", shown(value));
      metadata[key] = value.get<std::string>();
    }
    return metadata;
  }

  SafeTensor parse_tensor(const std::string& name, const Json& entry) const {
    const std::string what = "tensor " + in_quotes(name);
    if (!entry.is_object()) fail(what, "an object", shown(entry));
    for (const auto& [key, value] : entry.items())
      if (key != "dtype" && key != "shape" && key != "data_offsets")
        fail(what, "dtype, shape and data_offsets", in_quotes(key));
    for (const char* key : {"dtype", "shape", "data_offsets"})
      if (!entry.contains(key)) fail(what, "dtype, shape and data_offsets", fmt::format("no {}", key));

    SafeTensor tensor;
    tensor.name = name;
    const Json& dtype = entry["dtype"];
    if (!dtype.is_string() || element_size(dtype.get_ref<const std::string&>()) == 0)
      fail(what + " dtype", kDTypes, shown(dtype));
    tensor.dtype = dtype.get<std::string>();
    tensor.shape = parse_integers(what + " shape", entry["shape"]);
    int64_t expected = 0;
    if (!byte_size(tensor.shape, element_size(tensor.dtype), expected))
      fail(what + " shape", "a size in bytes below 2^63", "a larger one");
    tensor.bytes = parse_range(what + " data_offsets", entry["data_offsets"], expected);
    return tensor;
  }

  std::vector<int64_t> parse_integers(const std::string& what, const Json& array) const {
    if (!array.is_array()) fail(what, "an array", shown(array));
    std::vector<int64_t> integers;
    for (const Json& value : array) {
      if (!value.is_number_unsigned() || value.get<uint64_t>() > std::numeric_limits<int64_t>::max())
        fail(what, "integers from 0 to 2^63 - 1", shown(value));
      integers.push_back(value.get<int64_t>());
    }
    return integers;
  }

  std::span<const std::byte> parse_range(const std::string& what, const Json& array, int64_t bytes) const {
    const std::vector<int64_t> offsets = parse_integers(what, array);
    if (offsets.size() != 2) fail(what, "2 integers", std::to_string(offsets.size()));
    const int64_t begin = offsets[0], end = offsets[1];
    const std::string found = fmt::format("[{}, {}]", begin, end);
    if (begin > end) fail(what, "begin <= end", found);
    if (static_cast<uint64_t>(end) > data_.size())
      fail(what, fmt::format("at most {}, the end of the data", data_.size()), found);
    if (end - begin != bytes) fail(what, fmt::format("{} bytes for shape and dtype", bytes), found);
    return data_.subspan(static_cast<size_t>(begin), static_cast<size_t>(bytes));
  }

  // The tensors, sorted by offset, follow each other without holes from the first byte of the data to the last.
  void check_coverage(const std::vector<SafeTensor>& tensors) const {
    const std::byte* position = data_.data();
    for (const SafeTensor& tensor : tensors) {
      if (tensor.bytes.data() != position)
        fail("tensor " + in_quotes(tensor.name), fmt::format("to begin at data byte {}", position - data_.data()),
             fmt::format("{}", tensor.bytes.data() - data_.data()));
      position += tensor.bytes.size();
    }
    const auto covered = static_cast<size_t>(position - data_.data());
    if (covered != data_.size())
      fail("data", fmt::format("{} bytes, as the tensors need", covered), std::to_string(data_.size()));
  }

  const std::string& path_;
  std::string_view header_;
  std::span<const std::byte> data_;
};

template <class T, class Convert>
std::vector<float> convert(std::span<const std::byte> bytes, Convert to_float) {
  std::vector<float> values(bytes.size() / sizeof(T));
  for (size_t i = 0; i < values.size(); ++i) {
    T element;  // copied out, since the data may lie at any alignment
    std::memcpy(&element, bytes.data() + i * sizeof(T), sizeof(T));
    values[i] = to_float(element);
  }
  return values;
}

// Throws UsageError when the tensors cannot be written.
std::string make_header(const std::string& path, const std::vector<SafeTensor>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  const auto fail = [&](const std::string& reason) {
    throw UsageError(fmt::format("cannot write {}: {}", path, reason));
  };
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  std::set<std::string> names{kMetadata};
  uint64_t offset = 0;
  for (const SafeTensor& tensor : tensors) {
    if (!names.insert(tensor.name).second)
      fail(fmt::format("the name {} is given twice or reserved", in_quotes(tensor.name)));
    const int64_t element = element_size(tensor.dtype);
    if (element == 0)
      fail(
          fmt::format("tensor {} has dtype {}, expected {}", in_quotes(tensor.name), in_quotes(tensor.dtype), kDTypes));
    int64_t bytes = 0;
    if (!byte_size(tensor.shape, element, bytes) || static_cast<uint64_t>(bytes) != tensor.bytes.size())
      fail(fmt::format("tensor {} has {} bytes, expected {}", in_quotes(tensor.name), tensor.bytes.size(), bytes));
    const uint64_t end = offset + tensor.bytes.size();
    // Not operator[], which looks through all the names before: the set has seen them.
    header.get_ref<nlohmann::ordered_json::object_t&>().emplace_back(
        tensor.name,
        nlohmann::ordered_json{{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}});
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const Json::type_error&) {
    fail("a name or a metadata string is not UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMaxHeaderBytes)
    fail(fmt::format("the header has {} bytes, at most {} are allowed", text.size(), kMaxHeaderBytes));
  return text;
}

}  // namespace

std::vector<float> SafeTensor::to_floats() const {
  if (dtype == "F32") return convert<float>(bytes, [](float v) { return v; });
  if (dtype == "F64") return convert<double>(bytes, [](double v) { return static_cast<float>(v); });
  if (dtype == "F16") return convert<uint16_t>(bytes, [](uint16_t v) { return _cvtsh_ss(v); });
  if (dtype == "BF16")
    return convert<uint16_t>(bytes, [](uint16_t v) {
      const uint32_t bits = static_cast<uint32_t>(v) << 16;
      float f;
      std::memcpy(&f, &bits, sizeof f);
      return f;
    });
  throw FormatError(fmt::format("tensor {}: expected F64, F32, F16 or BF16, found {}", in_quotes(name), dtype));
}

SafeTensors SafeTensors::read(const std::string& path) {
  return parse(read_file(path, std::numeric_limits<int64_t>::max()), path);
}

SafeTensors SafeTensors::parse(std::vector<uint8_t> bytes, const std::string& path) {
  const auto fail = [&](const std::string& expected, uint64_t found) {
    throw FormatError(fmt::format("{}: expected {}, found {} bytes", path, expected, found));
  };
  SafeTensors file;
  file.bytes_ = std::move(bytes);
  const std::span<const std::byte> all = std::as_bytes(std::span(file.bytes_));
  if (all.size() < kPrefixBytes) fail("a safetensors file of at least 8 bytes", all.size());
  uint64_t length = 0;
  std::memcpy(&length, all.data(), kPrefixBytes);
  if (length > kMaxHeaderBytes) fail("a safetensors header of at most 100000000 bytes", length);
  if (length > all.size() - kPrefixBytes)
    fail(fmt::format("a header of {} bytes after the first 8", length), all.size() - kPrefixBytes);
  const std::string_view header(reinterpret_cast<const char*>(all.data()) + kPrefixBytes, length);
  HeaderParser(path, header, all.subspan(kPrefixBytes + length)).parse(file.tensors_, file.metadata_);
  return file;
}

const SafeTensor* SafeTensors::find(const std::string& name) const {
  const auto found = std::ranges::find(tensors_, name, &SafeTensor::name);
  return found == tensors_.end() ? nullptr : &*found;
}

void write_safetensors(const std::string& path, const std::vector<SafeTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  const std::string header = make_header(path, tensors, metadata);
  const uint64_t length = header.size();
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(header);
  for (const SafeTensor& tensor : tensors) file.write(tensor.bytes);
  file.commit();
}

}  // namespace convolt
