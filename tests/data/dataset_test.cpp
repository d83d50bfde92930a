#include "convolt/dataset.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include "convolt/error.h"
#include "data/sources.h"
#include "test_files.h"

namespace convolt::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> names(const Dataset& dataset, const std::filesystem::path& below) {
  std::vector<std::string> result;
  for (int64_t i = 0; i < dataset.size(); ++i)
    result.push_back(std::filesystem::path(dataset.name(i)).lexically_relative(below).string());
  return result;
}

TEST(ImageFolder, ClassesAndFilesInBytewiseOrder) {
  const TemporaryFolder folder;
  for (const char* name : {"train/b/2.jpg", "train/b/10.jpg", "train/a/x.png", "train/\xC3\xA9/y", "train/B/z",
                           "train/b/deep/er/1.jpg", "train/b/.hidden", "train/.hidden/1.jpg", "train/loose.txt"})
    folder.write(name, {1, 2, 3});
  const auto set = open_at(folder.path());
  EXPECT_THAT(set->class_names(), ElementsAre("B", "a", "b", "\xC3\xA9"));
  EXPECT_THAT(names(*set, folder.path() / "train"),
              ElementsAre("B/z", "a/x.png", "b/10.jpg", "b/2.jpg", "b/deep/er/1.jpg", "\xC3\xA9/y"));
  EXPECT_EQ(set->label(0), 0);
  EXPECT_EQ(set->label(4), 2);
  EXPECT_EQ(set->read(3).bytes, (Bytes{1, 2, 3}));
  EXPECT_EQ(set->read(3).height, 0);
  EXPECT_EQ(set->describe(), "image folder");
  uint8_t two[2] = {0, 0};
  EXPECT_EQ(set->read_part(3, 1, two), 2U);
  EXPECT_EQ(two[0], 2);
  EXPECT_EQ(set->read_part(3, 2, two), 1U);
  EXPECT_EQ(set->read_part(3, 9, two), 0U);
}

TEST(ImageFolder, FilesWhoseNamesSaySoAreNoPictures) {
  const TemporaryFolder folder;
  for (const char* name : {"a/1.jpg", "a/2", "a/3.unknown", "a/json", "a/notes.txt", "a/Thumbs.db",
                           "a/deep/LABELS.JSON", "a/x.jpg.md", "b/txt.png"})
    folder.write(name, {1, 2, 3});
  std::filesystem::create_symlink("nowhere", folder.path() / "a/link.csv");
  EXPECT_THAT(names(*open_at(folder.path()), folder.path()),
              ElementsAre("a/1.jpg", "a/2", "a/3.unknown", "a/json", "b/txt.png"));
  folder.write("c/README.md", {1});
  EXPECT_THAT(refusal(folder.path()), HasSubstr("c: the class folder has no pictures"));
}

TEST(ImageFolder, NamesTheClassThatIsALinkToItself) {
  const TemporaryFolder folder;
  for (const char* name : {"train/a/1", "train/b/1"}) folder.write(name, {1});
  std::filesystem::create_directory_symlink("c", folder.path() / "train/c");
  EXPECT_EQ(refusal(folder.path()),
            (folder.path() / "train/c").string() + ": cannot be listed (Too many levels of symbolic links)");
}

// DataError leaves a picture out; there is nothing amiss with this one.
TEST(PictureFile, TooManyOpenFilesAreNoFaultOfIt) {
  const TemporaryFolder folder;
  const std::string path = folder.write("a.jpg", {1}).string();
  rlimit old{};
  getrlimit(RLIMIT_NOFILE, &old);
  const rlimit none{0, old.rlim_max};
  setrlimit(RLIMIT_NOFILE, &none);
  std::string message;
  try {
    read_picture_file(path);
  } catch (const DataError&) {
    message = "is taken for the data's fault";
  } catch (const Error& error) {
    message = error.what();
  }
  setrlimit(RLIMIT_NOFILE, &old);
  EXPECT_EQ(message, path +
                         ": cannot be opened (Too many open files); raise the limit on open files (ulimit -n), "
                         "or use fewer threads (-j)");
}

TEST(ImageFolder, FindsTheSplitsUnderEachName) {
  for (const std::string validation : {"val", "validation", "valid", "test", "Val", "TEST"}) {
    const TemporaryFolder folder;
    const std::string train = validation == "Val" ? "Train" : validation == "validation" ? "training" : "train";
    folder.write(train + "/a/1", {1});
    folder.write(train + "/b/1", {1});
    folder.write(validation + "/a/2", {2});
    folder.write(validation + "/b/3", {3});
    EXPECT_EQ(open_at(folder.path(), Split::train)->read(0).bytes, Bytes{1});
    EXPECT_EQ(open_at(folder.path(), Split::validation)->read(0).bytes, Bytes{2}) << validation;
  }
}

TEST(ImageFolder, ATrainIsAClassBesideABus) {
  const TemporaryFolder folder;
  for (const char* name : {"Bus/1", "Test/1", "Train/1"}) folder.write(name, {1});
  EXPECT_THAT(open_at(folder.path(), Split::train)->class_names(), ElementsAre("Bus", "Test", "Train"));
  EXPECT_EQ(open_at(folder.path(), Split::validation), nullptr);
}

TEST(ImageFolder, TestPicturesAreLeftAloneWhereThereAreOthers) {
  for (const std::string validation : {"val", "validation", "valid", "Valid"}) {
    const TemporaryFolder folder;
    folder.write("train/a/1", {1});
    folder.write(validation + "/a/2", {2});
    folder.write("test/a/3", {3});
    EXPECT_EQ(open_at(folder.path(), Split::validation)->read(0).bytes, Bytes{2}) << validation;
  }
}

TEST(ImageFolder, BareClassFoldersAreATrainingSet) {
  const TemporaryFolder folder;
  folder.write("cat/1", {1});
  folder.write("dog/1", {1});
  EXPECT_THAT(open_at(folder.path())->class_names(), ElementsAre("cat", "dog"));
  EXPECT_EQ(open_at(folder.path(), Split::validation), nullptr);
}

TEST(ImageFolder, ErrorsSayWhatIsExpected) {
  const TemporaryFolder folder;
  const auto open_train = [&] { open_at(folder.path()); };
  EXPECT_THAT(message_of<DataError>(open_train), HasSubstr("expected train/<class>/<picture>"));
  std::filesystem::create_directories(folder.path() / "train/empty");
  EXPECT_THAT(message_of<DataError>(open_train), HasSubstr("no files in its class folders"));
  folder.write("train/full/1", {1});
  EXPECT_THAT(message_of<DataError>(open_train), HasSubstr("empty: the class folder has no pictures"));
  EXPECT_THAT(message_of<DataError>([&] { open_at(folder.path() / "nowhere"); }), HasSubstr("no such file or folder"));
  EXPECT_THAT(message_of<UsageError>([&] { open_at(folder.path(), Split::train, "webdataset"); }),
              HasSubstr("expected " + dataset_formats()));
}

TEST(ImageFolder, ValidationClassesMustBeThoseOfTraining) {
  const TemporaryFolder folder;
  folder.write("train/a/1", {1});
  folder.write("train/b/1", {1});
  folder.write("val/a/1", {1});
  const auto open_validation = [&] { open_at(folder.path(), Split::validation); };
  EXPECT_THAT(message_of<DataError>(open_validation), HasSubstr("lacks the class folder 'b'"));
  folder.write("val/b/1", {1});
  folder.write("val/c/1", {1});
  EXPECT_THAT(message_of<DataError>(open_validation), HasSubstr("has the class folder 'c'"));
}

TEST(ImageFolder, ValidationAloneIsNoTrainingSet) {
  const TemporaryFolder folder;
  folder.write("val/a/1", {1});
  EXPECT_THAT(message_of<DataError>([&] { open_at(folder.path()); }), HasSubstr("no training split"));
  EXPECT_EQ(open_at(folder.path(), Split::validation)->size(), 1);
}

TEST(ImageFolder, AVanishedFileIsADataErrorWithItsName) {
  const TemporaryFolder folder;
  const auto file = folder.write("train/a/gone.jpg", {1});
  const auto set = open_at(folder.path());
  std::filesystem::remove(file);
  EXPECT_THAT(message_of<DataError>([&] { set->read(0); }), HasSubstr("gone.jpg: cannot be opened"));
  std::filesystem::create_directories(file);
  EXPECT_THAT(message_of<DataError>([&] { set->read(0); }), HasSubstr("not a regular file"));
}

// One record: the label, then planes that count up.
Bytes cifar_record(uint8_t label) {
  Bytes record{label};
  for (int i = 0; i < 3072; ++i) record.push_back(static_cast<uint8_t>(i / 1024 * 100 + i % 1024 % 50));
  return record;
}

TEST(Cifar10, FolderOfBatches) {
  const TemporaryFolder folder;
  folder.write("data_batch_2.bin", cifar_record(9));
  folder.write("data_batch_1.bin", cifar_record(3) + cifar_record(4));
  folder.write("test_batch.bin", cifar_record(5));
  const auto train = open_at(folder.path()), test = open_at(folder.path(), Split::validation);
  ASSERT_EQ(train->size(), 3);
  EXPECT_EQ(test->size(), 1);
  EXPECT_EQ(train->label(1), 4);
  EXPECT_EQ(train->label(2), 9);
  EXPECT_EQ(train->name(1), "data_batch_1.bin[1]");
  EXPECT_EQ(train->name(2), "data_batch_2.bin[0]");
  EXPECT_THAT(train->class_names(), ElementsAre("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"));
  const RawSample sample = train->read(2);
  EXPECT_EQ(sample.height, 32);
  EXPECT_EQ(sample.width, 32);
  EXPECT_EQ(sample.channels, 3);
  ASSERT_EQ(sample.bytes.size(), 3072U);
  EXPECT_EQ((Bytes(sample.bytes.begin(), sample.bytes.begin() + 6)), (Bytes{0, 100, 200, 1, 101, 201}));
  EXPECT_EQ(sample.bytes.back(), 200 + 1023 % 50);
}

TEST(Cifar10, OneFileIsATrainingSetAndNamesComeFromTheMetaFile) {
  const TemporaryFolder folder;
  const auto file = folder.write("some.bin", cifar_record(1));
  folder.write("batches.meta.txt",
               bytes_of("airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n"));
  EXPECT_EQ(open_at(file)->size(), 1);
  EXPECT_EQ(open_at(file, Split::validation), nullptr);
  EXPECT_EQ(open_at(file)->class_names()[9], "truck");
}

TEST(Cifar100, HasFineLabelsBehindCoarseOnes) {
  const auto record = [](uint8_t coarse, uint8_t fine) {
    const Bytes of_ten = cifar_record(fine);
    return Bytes{coarse} + of_ten;
  };
  const TemporaryFolder folder;
  const auto file = folder.write("train.bin", record(1, 99) + record(19, 4));
  folder.write("test.bin", record(0, 7));
  std::string names;
  for (int c = 0; c < 100; ++c) names += "class" + std::to_string(c) + "\n";
  folder.write("fine_label_names.txt", bytes_of(names));
  const auto train = open_at(folder.path()), val = open_at(folder.path(), Split::validation);
  EXPECT_EQ(train->describe(), "CIFAR-100 records");
  ASSERT_EQ(train->size(), 2);
  EXPECT_EQ(train->label(0), 99);
  EXPECT_EQ(train->label(1), 4);
  EXPECT_EQ(val->label(0), 7);
  EXPECT_EQ(train->class_names()[99], "class99");
  const TemporaryFolder other;
  EXPECT_EQ(train->read(1).bytes, open_at(other.write("ten.bin", cifar_record(4)))->read(0).bytes);
  EXPECT_EQ(open_at(file)->size(), 2);
  EXPECT_EQ(open_at(file, Split::validation), nullptr);
  const auto bad = other.write("b.bin", record(0, 100));
  EXPECT_THROW(open_at(bad), FormatError);
}

TEST(Cifar10, BrokenFiles) {
  const TemporaryFolder folder;
  Bytes cut = cifar_record(1);
  cut.pop_back();
  const auto short_file = folder.write("a/data_batch_1.bin", cut);
  EXPECT_THAT(message_of<FormatError>([&] { open_at(short_file); }),
              HasSubstr("has 3072 bytes, expected a multiple of 3073"));
  const auto bad_label = folder.write("b/data_batch_1.bin", cifar_record(0) + cifar_record(10));
  EXPECT_THAT(message_of<FormatError>([&] { open_at(bad_label); }),
              HasSubstr("record 1 has label 10, expected 0 to 9"));
  const auto empty = folder.write("c/data_batch_1.bin", {});
  EXPECT_THAT(message_of<DataError>([&] { open_at(empty); }), HasSubstr("has no records"));
}

TEST(OpenDataset, SaysWhatAFileIsNot) {
  const TemporaryFolder folder;
  for (const char* name : {"README.md", "x.npy", "x.json", "empty"})
    EXPECT_THAT(refusal(folder.write(name, Bytes(name == std::string("empty") ? 0 : 100, '['))),
                HasSubstr(std::string(name) + ": is of no format that Convolt knows; expected a folder of pictures"));
  Bytes picture = numbered_ppm(30, 40, 1);
  EXPECT_THAT(refusal(folder.write("1.ppm", picture)), HasSubstr("1.ppm: is a picture, not a data set"));
  picture.resize(3073 * 2);
  EXPECT_THAT(refusal(folder.write("1.ppm", picture)), HasSubstr("is a picture"));
  EXPECT_EQ(open_at(folder.write("records", cifar_record(1)))->describe(), "CIFAR-10 records");
}

Bytes big_endian(uint32_t v) {
  return {static_cast<uint8_t>(v >> 24), static_cast<uint8_t>(v >> 16), static_cast<uint8_t>(v >> 8),
          static_cast<uint8_t>(v)};
}
Bytes idx_images(uint32_t n, uint32_t height, uint32_t width, const Bytes& pixels) {
  return big_endian(0x803) + big_endian(n) + big_endian(height) + big_endian(width) + pixels;
}
Bytes idx_labels(uint32_t n, const Bytes& labels) { return big_endian(0x801) + big_endian(n) + labels; }

TEST(Idx, PlainAndGzip) {
  const TemporaryFolder folder;
  folder.write("train-images-idx3-ubyte", idx_images(2, 2, 3, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
  folder.write("train-labels-idx1-ubyte", idx_labels(2, {3, 0}));
  write_gzip(folder.path() / "t10k-images-idx3-ubyte.gz", idx_images(1, 2, 3, {21, 22, 23, 24, 25, 26}));
  write_gzip(folder.path() / "t10k-labels-idx1-ubyte.gz", idx_labels(1, {1}));
  const auto train = open_at(folder.path()), test = open_at(folder.path(), Split::validation);
  EXPECT_EQ(train->describe(), "IDX");
  EXPECT_EQ(train->channels(), 1);
  EXPECT_EQ(train->fixed_height(), 2);
  EXPECT_EQ(train->fixed_width(), 3);
  EXPECT_EQ(train->read(1).bytes, (Bytes{7, 8, 9, 10, 11, 12}));
  EXPECT_EQ(train->label(0), 3);
  EXPECT_THAT(train->class_names(), ElementsAre("0", "1", "2", "3"));
  EXPECT_EQ(test->read(0).bytes, (Bytes{21, 22, 23, 24, 25, 26}));
  EXPECT_EQ(test->label(0), 1);
  EXPECT_EQ(test->class_names(), train->class_names());  // though it holds fewer
}

class IdxErrors : public testing::Test {
protected:
  std::string open_with(const Bytes& images, const Bytes& labels) {
    folder_.write("train-images-idx3-ubyte", images);
    folder_.write("train-labels-idx1-ubyte", labels);
    return message_of<FormatError>([&] { open_at(folder_.path()); });
  }
  TemporaryFolder folder_;
};

TEST_F(IdxErrors, NameExpectedAndFound) {
  const Bytes labels = idx_labels(1, {0});
  EXPECT_THAT(open_with(idx_images(1, 2, 2, {1, 2, 3}), labels),
              HasSubstr("expected 4 bytes after its header, found 3"));
  EXPECT_THAT(open_with(idx_images(1, 2, 2, {1, 2, 3, 4, 5}), labels),
              HasSubstr("expected 4 bytes after its header, found more"));
  EXPECT_THAT(open_with({0, 0, 8}, labels), HasSubstr("expected 16 bytes, found 3"));
  EXPECT_THAT(open_with(big_endian(0x802) + Bytes(12, 0), labels), HasSubstr("expected the IDX magic 2051"));
  EXPECT_THAT(open_with(idx_images(1, 0, 2, {}), labels), HasSubstr("extent 0"));
  EXPECT_THAT(open_with(idx_images(2, 1, 1, {1, 2}), labels), HasSubstr("has 1 labels, expected 2"));
  EXPECT_THAT(open_with(idx_images(1, 1, 1, {1}), idx_labels(4000000000U, {0})),
              HasSubstr("expected 4000000000 bytes after its header, found 1"));
  // 2^32 x 2^16 x 2^16 bytes overflow 64 bits.
  EXPECT_THAT(open_with(idx_images(0xFFFFFFFFU, 65535, 65535, {1}), labels), HasSubstr("empty or too large"));
}

TEST_F(IdxErrors, BrokenGzip) {
  write_gzip(folder_.path() / "train-images-idx3-ubyte.gz", idx_images(1, 64, 64, Bytes(4096, 7)));
  const auto file = folder_.path() / "train-images-idx3-ubyte.gz";
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 12);
  folder_.write("train-labels-idx1-ubyte", idx_labels(1, {0}));
  EXPECT_THAT(message_of<FormatError>([&] { open_at(folder_.path()); }), HasSubstr("train-images-idx3-ubyte.gz"));
}

TEST_F(IdxErrors, ValidationLabelOutsideTheTrainingClasses) {
  folder_.write("train-images-idx3-ubyte", idx_images(1, 1, 1, {1}));
  folder_.write("train-labels-idx1-ubyte", idx_labels(1, {1}));
  folder_.write("t10k-images-idx3-ubyte", idx_images(2, 1, 1, {1, 1}));
  folder_.write("t10k-labels-idx1-ubyte", idx_labels(2, {0, 2}));
  EXPECT_THAT(message_of<FormatError>([&] { open_at(folder_.path(), Split::validation); }),
              HasSubstr("label 1 is 2, expected 0 to 1"));
}

TEST(Idx, LabelsMissing) {
  const TemporaryFolder folder;
  folder.write("train-images-idx3-ubyte", idx_images(1, 1, 1, {1}));
  EXPECT_THAT(message_of<DataError>([&] { open_at(folder.path()); }), HasSubstr("no train-labels*"));
}

}  // namespace
}  // namespace convolt::test
