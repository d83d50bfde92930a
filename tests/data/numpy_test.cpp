// Data sets as NumPy arrays. An .npz is a zip, made here without compression by hand.
#include <gmock/gmock.h>
#include <zip.h>

#include "convolt/dataset.h"
#include "convolt/error.h"
#include "io/npy.h"
#include "test_files.h"

namespace convolt::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A file of version 1 or 2.
Bytes npy(const std::string& type, const std::string& shape, const Bytes& data, int version = 1,
          const std::string& order = "False") {
  std::string header = "{'descr': '" + type + "', 'fortran_order': " + order + ", 'shape': (" + shape + "), }\n";
  Bytes file = bytes_of("\x93NUMPY") + Bytes{static_cast<uint8_t>(version), 0};
  const size_t n = header.size();
  file = file + Bytes{static_cast<uint8_t>(n & 255), static_cast<uint8_t>(n >> 8)};
  if (version > 1) file = file + Bytes{0, 0};
  return file + bytes_of(header) + data;
}

Bytes counted(int n) {
  Bytes bytes(static_cast<size_t>(n));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i);
  return bytes;
}

void write_zip(const std::filesystem::path& path, const std::vector<std::pair<std::string, Bytes>>& members) {
  int code = 0;
  zip_t* const zip = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &code);
  ASSERT_NE(zip, nullptr);
  for (const auto& [name, bytes] : members) {
    zip_source_t* const source = zip_source_buffer(zip, bytes.data(), bytes.size(), 0);
    ASSERT_GE(zip_file_add(zip, name.c_str(), source, ZIP_FL_ENC_UTF_8), 0);
  }
  ASSERT_EQ(zip_close(zip), 0);
}

TEST(NpyHeader, IsReadInEachVersionAndSpelling) {
  const auto read = [](const Bytes& file) { return read_npy_header(file, "a"); };
  const NpyHeader h = read(npy("<i8", "60000, 28, 28", {}));
  EXPECT_EQ(h.type, "<i8");
  EXPECT_FALSE(h.fortran_order);
  EXPECT_THAT(h.shape, ElementsAre(60000, 28, 28));
  const Bytes two = npy("|u1", "5,", {7, 8}, 2, "True");
  EXPECT_TRUE(read(two).fortran_order);
  EXPECT_THAT(read(two).shape, ElementsAre(5));
  EXPECT_EQ(two[static_cast<size_t>(read(two).data)], 7);
  EXPECT_TRUE(read(npy("<f4", "", {})).shape.empty());
  for (const Bytes& bad : {bytes_of("\x93NUMPX"), Bytes{}, npy("|u1", "5", {}, 4), npy("|u1", "-5", {}),
                           npy("|u1", "4611686018427387904, 4", {}), npy("|u1", "a", {}), npy("", "5", {})})
    EXPECT_THROW(read(bad), FormatError);
  const Bytes whole = npy("|u1", "5", {});
  for (size_t n = 0; n < whole.size(); ++n)
    EXPECT_THROW(read(Bytes(whole.begin(), whole.begin() + static_cast<int64_t>(n))), FormatError) << n;
}

TEST(NumpyArrays, FoldersAndArchivesHoldTheSame) {
  const TemporaryFolder folder;
  const Bytes pictures = npy("|u1", "2, 3, 4, 3", counted(72)), grey = npy("|u1", "1, 3, 4, 3", Bytes(36, 9));
  const Bytes labels = npy("<i8", "2,", {4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}),
              one = npy("|u1", "1, 1", {6});
  folder.write("set/x_train.npy", pictures);
  folder.write("set/y_train.npy", labels);
  folder.write("set/x_test.npy", grey);
  folder.write("set/y_test.npy", one);
  write_zip(folder.path() / "set.npz", {{"train_images.npy", pictures},
                                        {"train_labels.npy", labels},
                                        {"val_images.npy", grey},
                                        {"val_labels.npy", one}});
  for (const char* name : {"set", "set.npz"}) {
    SCOPED_TRACE(name);
    const auto train = open_at(folder.path() / name), val = open_at(folder.path() / name, Split::validation);
    EXPECT_EQ(train->describe(), "NumPy arrays");
    ASSERT_EQ(train->size(), 2);
    EXPECT_EQ(train->class_names().size(), 7U);  // of both parts
    EXPECT_EQ(val->class_names(), train->class_names());
    EXPECT_EQ(train->label(0), 4);
    EXPECT_EQ(train->label(1), 1);
    EXPECT_EQ(val->label(0), 6);
    EXPECT_EQ(train->fixed_height(), 3);
    EXPECT_EQ(train->fixed_width(), 4);
    EXPECT_EQ(train->channels(), 3);
    const RawSample second = train->read(1);
    EXPECT_EQ(second.bytes[0], 36);
    EXPECT_EQ(second.bytes[35], 71);
    EXPECT_EQ(second.height, 3);
    EXPECT_EQ(val->read(0).bytes, Bytes(36, 9));
  }
}

TEST(NumpyArrays, GreyPicturesHaveOneChannel) {
  const TemporaryFolder folder;
  folder.write("images.npy", npy("|u1", "2, 2, 3", counted(12)));
  folder.write("labels.npy", npy("<u2", "2", {1, 0, 0, 1}));
  const auto set = open_at(folder.path());
  EXPECT_EQ(set->channels(), 1);
  EXPECT_EQ(set->label(1), 256);
  EXPECT_EQ(set->read(1).bytes, (Bytes{6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(open_at(folder.path(), Split::validation), nullptr);
}

TEST(NumpyArrays, AnotherArrayBesideClassFoldersIsNotTheDataSet) {
  const TemporaryFolder folder;
  folder.write("train/a/0.ppm", numbered_ppm(2, 2, 1));
  folder.write("mean.npy", npy("|u1", "2, 2, 3", counted(12)));
  EXPECT_EQ(open_at(folder.path())->describe(), "image folder");
  folder.write("x_train.npy", npy("|u1", "2, 2, 3", counted(12)));
  folder.write("y_train.npy", npy("|u1", "2", {1, 0}));
  EXPECT_EQ(open_at(folder.path())->describe(), "NumPy arrays");
}

TEST(NumpyArrays, ErrorsSayWhatIsExpected) {
  const Bytes good = npy("|u1", "2, 2, 2", counted(8)), labels = npy("|i1", "2", {0, 1});
  const std::tuple<Bytes, Bytes, const char*> cases[] = {
      {npy("<f4", "2, 2, 2", Bytes(32)), labels, "has elements of type '<f4', expected integers"},
      {npy("<u2", "2, 2, 2", Bytes(16)), labels, "is no array of pictures"},
      {npy("|u1", "2, 2, 2, 4", Bytes(32)), labels, "is no array of pictures"},
      {npy("|u1", "2, 2, 2", Bytes(7)), labels, "ends before its 8 elements do"},
      {npy("|u1", "2, 2, 2", Bytes(8), 1, "True"), labels, "is in Fortran's order"},
      {npy("|u1", "0, 2, 2", {}), npy("|u1", "0", {}), "has no pictures"},
      {good, npy("|u1", "3", {0, 1, 2}), "has 3 labels, expected 2"},
      {good, npy("|i1", "2", {0, 255}), "label 1 is no class"},
      {good, npy("<i2", "2", {0, 0, 255, 255}), "label 1 is no class"},
      {good, npy("<u4", "2", {0, 0, 0, 0, 0, 0, 16, 0}), "label 1 is no class"},
      {good, npy("|u1", "2, 3", Bytes(6)), "is no list of labels"}};
  for (const auto& [x, y, said] : cases) {
    const TemporaryFolder folder;
    folder.write("x_train.npy", x);
    folder.write("y_train.npy", y);
    EXPECT_THAT(refusal(folder.path()), HasSubstr(said));
  }
  const TemporaryFolder alone;
  alone.write("x_train.npy", good);
  EXPECT_THAT(refusal(alone.path()), HasSubstr("has no labels beside it; expected 'train_labels'"));
  const TemporaryFolder none;
  none.write("weights.npy", good);
  EXPECT_THAT(refusal(none.path()), HasSubstr("has no training split; expected train_images and train_labels"));
}

}  // namespace
}  // namespace convolt::test
