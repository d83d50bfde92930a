// Named tensors in a file, https://huggingface.co/docs/safetensors: 8 bytes header length (little-endian), a JSON
// header, the data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace convolt {

// One tensor, elements in C order, little-endian. Does not own its bytes.
struct SafeTensor {
  std::string name;
  std::string dtype;                 // "F64", "I64", "F32", "I32", "F16", "BF16", "U8"
  std::vector<int64_t> shape;        // empty for a scalar
  std::span<const std::byte> bytes;  // at any alignment

  // F64, F32, F16 and BF16 elements as float (F64 is rounded). Throws FormatError for integers.
  std::vector<float> to_floats() const;
};

// A file as read and checked. Move-only: it owns the bytes that its tensors refer to.
class SafeTensors {
public:
  // Reads the whole file. Throws DataError when it cannot be read, and FormatError (path, expected, found) when
  // anything in it departs from the format: a header over 100 MB or longer than the file, no JSON object of the right
  // depth and types, a name twice, an unknown dtype, offsets beyond the data, overlaps, holes, a size that is not shape
  // x dtype.
  static SafeTensors read(const std::string& path);
  // The same for bytes in memory; `path` is for messages.
  static SafeTensors parse(std::vector<uint8_t> bytes, const std::string& path);

  SafeTensors(SafeTensors&&) = default;
  SafeTensors& operator=(SafeTensors&&) = default;

  // In the order of their data.
  const std::vector<SafeTensor>& tensors() const { return tensors_; }
  // nullptr when there is none of this name.
  const SafeTensor* find(const std::string& name) const;
  // The header's "__metadata__"; empty when it has none.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

private:
  SafeTensors() = default;

  std::vector<uint8_t> bytes_;
  std::vector<SafeTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Writes the tensors in this order, the data starting at a multiple of 8 bytes, through AtomicFile. Throws UsageError
// for a name given twice, an unknown dtype or a size that is not shape x dtype, and Error when the file cannot be
// written.
void write_safetensors(const std::string& path, const std::vector<SafeTensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace convolt
