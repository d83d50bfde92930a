#include "io/safetensors.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "convolt/error.h"
#include "io/file_size_limit.h"
#include "support/temp_folder.h"

namespace convolt::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::ThrowsMessage;

template <class T>
SafeTensor tensor_of(std::string name, std::string dtype, std::vector<int64_t> shape, const std::vector<T>& values) {
  return {std::move(name), std::move(dtype), std::move(shape), std::as_bytes(std::span(values))};
}

std::vector<uint8_t> file_of(const std::string& header, const std::string& data, uint64_t length) {
  const std::string bytes = std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
  return {bytes.begin(), bytes.end()};
}

std::vector<uint8_t> file_of(const std::string& header, const std::string& data) {
  return file_of(header, data, header.size());
}

const char* const kGoldenPath = CONVOLT_SOURCE_DIR "/tests/io/golden/python.safetensors";

// Written by tools/golden/safetensors_golden.py.
TEST(SafeTensors, ReadsWhatPythonWrote) {
  const SafeTensors file = SafeTensors::read(kGoldenPath);
  EXPECT_THAT(file.metadata(), ElementsAre(Pair("epoch", "3"), Pair("format", "pt")));
  ASSERT_EQ(file.tensors().size(), 8U);
  const SafeTensor& weight = *file.find("conv.weight");
  EXPECT_EQ(weight.dtype, "F32");
  EXPECT_THAT(weight.shape, ElementsAre(2, 1, 3));
  EXPECT_THAT(weight.to_floats(), ElementsAre(-0.75F, -0.5F, -0.25F, 0.F, 0.25F, 0.5F));
  EXPECT_THAT(file.find("half")->to_floats(), ElementsAre(1.F, -0.5F, 65504.F, 0x1p-24F, INFINITY));
  EXPECT_THAT(file.find("brain")->to_floats(), ElementsAre(1.F, -3.140625F, 0x1.fep127F));
  EXPECT_THAT(file.find("double")->to_floats(), ElementsAre(0.1F, -INFINITY));
  const SafeTensor& batches = *file.find("bn.num_batches_tracked");
  EXPECT_THAT(batches.shape, IsEmpty());
  int64_t seven = 0;
  ASSERT_EQ(batches.bytes.size(), sizeof seven);
  std::memcpy(&seven, batches.bytes.data(), sizeof seven);
  EXPECT_EQ(seven, 7);
  EXPECT_THAT(file.find("bytes")->bytes, ElementsAre(std::byte{0}, std::byte{128}, std::byte{255}));
  EXPECT_THAT(file.find("empty")->shape, ElementsAre(0, 4));
  EXPECT_THAT(file.find("empty")->to_floats(), IsEmpty());
  EXPECT_EQ(file.find("absent"), nullptr);
}

TEST(SafeTensors, IntegersAreNotFloats) {
  const SafeTensors file = SafeTensors::read(kGoldenPath);
  EXPECT_THAT([&] { file.find("labels")->to_floats(); },
              ThrowsMessage<FormatError>(AllOf(HasSubstr("\"labels\""), HasSubstr("I32"))));
}

TEST(SafeTensors, RoundTrip) {
  const TempFolder folder;
  const std::vector<float> weight{1, 2, 3, 4, 5, 6}, none;
  const std::vector<uint8_t> odd{9, 8, 7};
  const std::vector<int64_t> count{-5};
  const std::vector<double> wide{0.5, 2};
  const std::vector<SafeTensor> written{tensor_of("z.weight", "F32", {2, 3}, weight), tensor_of("odd", "U8", {3}, odd),
                                        tensor_of("none", "F32", {0}, none),
                                        tensor_of("a \"quoted\" \n n\xc3\xa4me", "I64", {}, count),
                                        tensor_of("wide", "F64", {1, 2}, wide)};
  write_safetensors(folder.path("a"), written, {{"step", "12"}, {"", "\xf0\x9f\x98\x80"}});

  const SafeTensors read = SafeTensors::read(folder.path("a"));
  EXPECT_THAT(read.metadata(), ElementsAre(Pair("", "\xf0\x9f\x98\x80"), Pair("step", "12")));
  ASSERT_EQ(read.tensors().size(), written.size());
  for (size_t i = 0; i < written.size(); ++i) {
    const SafeTensor &a = written[i], &b = read.tensors()[i];
    EXPECT_EQ(a.name, b.name);
    EXPECT_EQ(a.dtype, b.dtype);
    EXPECT_EQ(a.shape, b.shape);
    EXPECT_TRUE(std::ranges::equal(a.bytes, b.bytes)) << a.name;
  }
  EXPECT_THAT(read.find("wide")->to_floats(), ElementsAre(0.5F, 2.F));  // from an odd address
}

TEST(SafeTensors, TheBytesOnDisk) {
  const TempFolder folder;
  const std::vector<float> values{1};
  write_safetensors(folder.path("a"), {tensor_of("b", "F32", {1}, values)}, {{"k", "v"}});
  const std::string header = R"({"__metadata__":{"k":"v"},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  EXPECT_EQ(contents(folder.path("a")), std::string("\x50\0\0\0\0\0\0\0", 8) + header +
                                            std::string(80 - header.size(), ' ') + std::string("\0\0\x80\x3f", 4));
}

TEST(SafeTensors, AFileWithoutTensors) {
  const TempFolder folder;
  write_safetensors(folder.path("a"), {});
  EXPECT_THAT(SafeTensors::read(folder.path("a")).tensors(), IsEmpty());
  EXPECT_THAT(SafeTensors::parse(file_of("{}", ""), "p").metadata(), IsEmpty());
}

TEST(SafeTensors, DataStartsOnAMultipleOfEight) {
  const TempFolder folder;
  for (size_t length = 1; length <= 9; ++length) {
    write_safetensors(folder.path("a"), {}, {{std::string(length, 'k'), "v"}});
    EXPECT_EQ(contents(folder.path("a")).size() % 8, 0U) << length;
  }
}

TEST(SafeTensors, TensorsComeInTheOrderOfTheirData) {
  const auto file = SafeTensors::parse(
      file_of(
          R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[2,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
          R"("c":{"dtype":"F32","shape":[5,0],"data_offsets":[2,2]}}  )",
          "xyz"),
      "p");
  ASSERT_EQ(file.tensors().size(), 3U);
  EXPECT_EQ(file.tensors()[0].name, "b");
  EXPECT_EQ(file.tensors()[1].name, "c");
  EXPECT_EQ(file.tensors()[2].name, "a");
  EXPECT_THAT(file.find("a")->bytes, ElementsAre(std::byte{'z'}));
}

struct BadHeader {
  const char* header;
  const char* message;  // a part of the error's
};

// Each with 4 bytes of data.
const BadHeader kBadHeaders[] = {
    // Not the JSON that the format asks for.
    {"", "expected a JSON object"},
    {"[]", "expected a JSON object, found \"[\""},
    {" {}", "expected a JSON object, found \" \""},
    {"{", "expected JSON, found an error at byte 2"},
    {"{}x", "expected JSON, found an error at byte 3"},
    {"{} // comment", "expected JSON"},
    {R"({"a":01})", "expected JSON"},
    {R"({"a":1e999})", "a number that no double can hold"},
    {"{\"\xff\":{}}", "expected JSON"},
    {R"({"a":{"dtype":"U8","shape":[[4]],"data_offsets":[0,4]}})", "at most 3 deep"},
    {R"({"a":[[[[]]]]})", "at most 3 deep"},
    {R"({"a":{"b":{"c":{}}}})", "at most 3 deep"},
    // Names.
    {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
     "expected every name once, found \"a\" twice"},
    {R"({"a":{"dtype":"U8","shape":[2],"shape":[4],"data_offsets":[0,4]}})", "found \"shape\" twice"},
    {R"({"__metadata__":{"k":"v","k":"w"},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", "found \"k\" twice"},
    // Metadata.
    {R"({"__metadata__":["k"]})", "__metadata__: expected an object, found an array"},
    {R"({"__metadata__":{"k":1}})", "__metadata__ \"k\": expected a string, found \"1\""},
    {R"({"__metadata__":{"k":{}}})", "expected a string, found an object"},
    // A tensor's fields.
    {R"({"a":4})", "tensor \"a\": expected an object, found \"4\""},
    {R"({"a":{}})", "found no dtype"},
    {R"({"a":{"dtype":"U8","data_offsets":[0,4]}})", "found no shape"},
    {R"({"a":{"dtype":"U8","shape":[4]}})", "found no data_offsets"},
    {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"scale":2}})", "found \"scale\""},
    {R"({"a":{"dtype":"u8","shape":[4],"data_offsets":[0,4]}})",
     "dtype: expected F64, I64, F32, I32, F16, BF16 or U8, found \"u8\""},
    {R"({"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}})", "found \"F8_E4M3\""},
    {R"({"a":{"dtype":5,"shape":[4],"data_offsets":[0,4]}})", "found \"5\""},
    {R"({"a":{"dtype":"U8","shape":4,"data_offsets":[0,4]}})", "shape: expected an array, found \"4\""},
    {R"({"a":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}})",
     "shape: expected integers from 0 to 2^63 - 1, found \"-4\""},
    {R"({"a":{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}})", "found \"4.0\""},
    {R"({"a":{"dtype":"U8","shape":["4"],"data_offsets":[0,4]}})", "shape: expected integers"},
    {R"({"a":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,4]}})", "found \"9223372036854775808\""},
    {R"({"a":{"dtype":"U8","shape":[18446744073709551620],"data_offsets":[0,4]}})", "shape: expected integers"},
    // 2^62 x 4 bytes and 2^32 x 2^32 wrap around to 0, 2^61 x 4 to a negative number.
    {R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", "below 2^63"},
    {R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", "below 2^63"},
    {R"({"a":{"dtype":"F32","shape":[2305843009213693952],"data_offsets":[0,4]}})", "below 2^63"},
    // Offsets.
    {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":4}})", "data_offsets: expected an array"},
    {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[4]}})", "expected 2 integers, found 1"},
    {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4,4]}})", "expected 2 integers, found 3"},
    {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[-4,0]}})", "data_offsets: expected integers from 0"},
    {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}})", "expected begin <= end, found [4, 0]"},
    {R"({"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]}})",
     "expected at most 4, the end of the data, found [0, 5]"},
    {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[9223372036854775803,9223372036854775807]}})", "at most 4"},
    {R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,4]}})", "expected 3 bytes for shape and dtype, found [0, 4]"},
    {R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,2]}})", "expected 4 bytes"},
    {R"({"a":{"dtype":"F16","shape":[2,0],"data_offsets":[0,4]}})", "expected 0 bytes"},
    // Overlaps, holes and bytes that belong to nobody.
    {R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
     "tensor \"b\": expected to begin at data byte 3, found 2"},
    {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
     "expected to begin at data byte 4, found 0"},
    {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"e":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}})",
     "tensor \"e\": expected to begin at data byte 4, found 2"},
    {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
     "tensor \"b\": expected to begin at data byte 1, found 2"},
    {R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}})", "expected to begin at data byte 0, found 1"},
    {R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})",
     "data: expected 3 bytes, as the tensors need, found 4"},
    {"{}", "data: expected 0 bytes"},
};

TEST(SafeTensors, BadHeadersAreNamedErrors) {
  for (const BadHeader& bad : kBadHeaders)
    EXPECT_THAT([&] { SafeTensors::parse(file_of(bad.header, "data"), "some/file"); },
                ThrowsMessage<FormatError>(AllOf(HasSubstr("some/file: "), HasSubstr(bad.message))))
        << bad.header;
}

TEST(SafeTensors, ANulByteDoesNotEndTheHeader) {
  const std::string header("{}\0{}", 5);
  EXPECT_THAT([&] { SafeTensors::parse(file_of(header, ""), "p"); },
              ThrowsMessage<FormatError>(HasSubstr("a NUL byte")));
}

TEST(SafeTensors, HeaderLengths) {
  const auto parse = [](uint64_t length) { return [=] { SafeTensors::parse(file_of("{}      ", "", length), "p"); }; };
  EXPECT_NO_THROW(parse(8)());
  EXPECT_THAT(parse(9),
              ThrowsMessage<FormatError>(HasSubstr("expected a header of 9 bytes after the first 8, found 8")));
  EXPECT_THAT(parse(100'000'000), ThrowsMessage<FormatError>(HasSubstr("expected a header of 100000000 bytes")));
  EXPECT_THAT(parse(100'000'001), ThrowsMessage<FormatError>(HasSubstr("at most 100000000 bytes, found 100000001")));
  EXPECT_THAT(parse(UINT64_MAX), ThrowsMessage<FormatError>(HasSubstr("at most 100000000")));
  EXPECT_THAT(parse(UINT64_MAX - 7), ThrowsMessage<FormatError>(HasSubstr("at most 100000000")));
}

TEST(SafeTensors, LongNamesAreCutInMessages) {
  const std::string header = "{\"" + std::string(100'000, 'n') + "\":1}";
  try {
    SafeTensors::parse(file_of(header, ""), "p");
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_LT(std::strlen(error.what()), 200U);
  }
}

TEST(SafeTensors, DeepNestingIsRefusedEarly) {
  EXPECT_THAT([] { SafeTensors::parse(file_of("{\"a\":" + std::string(1'000'000, '['), ""), "p"); },
              ThrowsMessage<FormatError>(HasSubstr("3 deep")));
}

TEST(SafeTensors, TruncatedAtEveryByte) {
  const std::string whole = contents(kGoldenPath);
  ASSERT_EQ(whole.size(), 627U);
  for (size_t length = 0; length < whole.size(); ++length)
    EXPECT_THROW(SafeTensors::parse({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)}, "p"),
                 FormatError)
        << length;
  EXPECT_THROW(SafeTensors::parse(file_of("", whole + "x", 0), "p"), FormatError);
}

// Whatever a flip makes of a header, the file is refused or read whole: never a crash (ASan, UBSan), never another
// exception.
TEST(SafeTensors, FlippedBytesNeverCrash) {
  const std::string whole = contents(kGoldenPath);
  const size_t header_end = 8 + 544;
  std::mt19937 random(1);
  int refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::vector<uint8_t> bytes(whole.begin(), whole.end());
    for (uint32_t flips = 1 + random() % 3; flips > 0; --flips)
      bytes[random() % header_end] = static_cast<uint8_t>(random());
    try {
      const SafeTensors file = SafeTensors::parse(std::move(bytes), "p");
      size_t total = 0;
      for (const SafeTensor& tensor : file.tensors()) {
        total += tensor.bytes.size();
        if (tensor.dtype.find('F') != std::string::npos) tensor.to_floats();
      }
      EXPECT_EQ(total, whole.size() - header_end);
    } catch (const FormatError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 10'000);
}

TEST(SafeTensors, MissingFile) {
  EXPECT_THAT([] { SafeTensors::read("/none/a.safetensors"); },
              ThrowsMessage<DataError>(AllOf(HasSubstr("/none/a.safetensors"), HasSubstr("No such file"))));
}

TEST(WriteSafeTensors, RefusesWhatItCouldNotReadBack) {
  const TempFolder folder;
  const std::vector<uint8_t> data{1, 2, 3, 4};
  const auto write = [&](const std::vector<SafeTensor>& tensors,
                         const std::map<std::string, std::string>& metadata = {}) {
    return [=, path = folder.path("a")] { write_safetensors(path, tensors, metadata); };
  };
  const SafeTensor good = tensor_of("a", "U8", {4}, data);
  EXPECT_THAT(write({good, good}), ThrowsMessage<UsageError>(HasSubstr("\"a\" is given twice")));
  EXPECT_THAT(write({tensor_of("__metadata__", "U8", {4}, data)}), ThrowsMessage<UsageError>(HasSubstr("reserved")));
  EXPECT_THAT(write({tensor_of("a", "F8", {4}, data)}), ThrowsMessage<UsageError>(HasSubstr("has dtype \"F8\"")));
  EXPECT_THAT(write({tensor_of("a", "U8", {5}, data)}),
              ThrowsMessage<UsageError>(HasSubstr("has 4 bytes, expected 5")));
  EXPECT_THAT(write({tensor_of("a", "U8", {-4}, data)}), ThrowsMessage<UsageError>(HasSubstr("has 4 bytes")));
  EXPECT_THAT(write({tensor_of("\xff", "U8", {4}, data)}), ThrowsMessage<UsageError>(HasSubstr("not UTF-8")));
  EXPECT_THAT(write({good}, {{"k", "\xff"}}), ThrowsMessage<UsageError>(HasSubstr("not UTF-8")));
  EXPECT_THAT(folder.names(), IsEmpty());
}

TEST(WriteSafeTensors, AFullDiskKeepsTheOldCheckpoint) {
  const TempFolder folder;
  const std::vector<float> old{1, 2}, larger(10'000);
  write_safetensors(folder.path("a"), {tensor_of("a", "F32", {2}, old)});
  {
    const FileSizeLimit limit(4096);
    EXPECT_THAT([&] { write_safetensors(folder.path("a"), {tensor_of("a", "F32", {10'000}, larger)}); },
                ThrowsMessage<Error>(HasSubstr("File too large")));
  }
  EXPECT_THAT(SafeTensors::read(folder.path("a")).find("a")->to_floats(), ElementsAre(1.F, 2.F));
  EXPECT_THAT(folder.names(), ElementsAre("a"));
}

}  // namespace
}  // namespace convolt::test
