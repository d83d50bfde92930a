// Reading packed sets: the same samples and batches as from the folder, and no damage unnoticed.
#include <array>
#include <fstream>
#include <numeric>

#include "data/decode.h"
#include "data/packed_format.h"
#include "data/sources.h"
#include "loader_fixture.h"
#include "packed_fixture.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

Bytes content_of(const RawSample& sample) { return {sample.content().begin(), sample.content().end()}; }

void expect_same_samples(const Dataset& packed, const Dataset& folder) {
  ASSERT_EQ(packed.size(), folder.size());
  EXPECT_EQ(packed.class_names(), folder.class_names());
  for (int64_t i = 0; i < folder.size(); ++i) {
    const RawSample sample = packed.read(i);
    EXPECT_EQ(content_of(sample), folder.read(i).bytes) << folder.name(i);
    EXPECT_EQ(sample.height, 0);
    EXPECT_EQ(packed.label(i), folder.label(i));
    EXPECT_EQ(sample.label, folder.label(i));
    for (const int64_t offset : {0, 3, 100'000}) {
      Bytes part(7), expected(7);
      const size_t count = folder.read_part(i, offset, expected);
      EXPECT_EQ(packed.read_part(i, offset, part), count);
      EXPECT_EQ(part, expected);
    }
  }
}

TEST(Packed, EverySampleIsThatOfTheFolder) {
  const PictureFolder pictures(true);
  for (const int shards : {1, 3}) {
    PackOptions o = pictures.options(std::to_string(shards) + "/set.cvt");
    o.shards = shards;
    std::filesystem::create_directory(pictures.at(std::to_string(shards)));
    const PackResult result = pack_dataset(o);
    EXPECT_EQ(result.train, 18);
    EXPECT_EQ(result.validation, 5);
    EXPECT_TRUE(result.left_out.empty()) << "a picture that is broken is packed as it is";
    const std::string folder = std::to_string(shards);
    const std::string first = folder + (shards == 1 ? "/set.cvt" : "/set-00000-of-00003.cvt");
    for (const std::string& name : {folder, first})
      for (const Split split : {Split::train, Split::validation})
        expect_same_samples(*pictures.open_set(split, name), *pictures.open(split));
    EXPECT_EQ(pictures.open_set(Split::train, first)->describe(), "packed set");
  }
}

TEST(Packed, WeightsOfAListArePacked) {
  const PictureFolder pictures;
  const std::string list = pictures.at("list.csv");
  std::ofstream(list) << "path,label,weight\n";
  const auto folder = pictures.open();
  for (int64_t i = 0; i < folder->size(); ++i)
    std::ofstream(list, std::ios::app) << folder->name(i) << ",c" << i % 2 << "," << 0.5 * static_cast<double>(i + 1)
                                       << "\n";
  PackOptions o = pictures.options();
  o.data_path = list;
  pack_dataset(o);
  const auto packed = open_dataset({o.output});
  EXPECT_EQ(packed->size(), folder->size());
  for (int64_t i = 0; i < packed->size(); ++i) {
    EXPECT_EQ(packed->weight(i), 0.5F * static_cast<float>(i + 1));
    EXPECT_EQ(packed->label(i), i % 2);
    EXPECT_EQ(content_of(packed->read(i)), folder->read(i).bytes);
  }
}

TEST(Packed, BesidePicturesItIsNotTheirs) {
  const PictureFolder pictures;
  PackOptions o = pictures.options();
  o.output = pictures.path() + "/set.cvt";
  pack_dataset(o);
  EXPECT_EQ(pictures.open()->describe(), "image folder");
  EXPECT_EQ(open_dataset({o.output})->describe(), "packed set");
}

TEST(Packed, NamesAndExtentsAreKnownWithoutReading) {
  const PictureFolder pictures(true);
  pack_dataset(pictures.options());
  const auto packed = pictures.open_set(), folder = pictures.open();
  EXPECT_TRUE(packed->reads_parts());
  for (int64_t i = 0; i < folder->size(); ++i) {
    const std::filesystem::path below = std::filesystem::path(folder->name(i)).lexically_relative(pictures.path());
    EXPECT_EQ(packed->name(i), pictures.at("set.cvt/" + below.string()));
    const auto extent = packed->extent(i);
    ASSERT_TRUE(extent);
    if (below == "train/bee/text.jpg") {
      EXPECT_EQ(extent->height, 0);
      continue;
    }
    const PictureHeader header = read_picture_header(folder->read(i).bytes);
    EXPECT_EQ(extent->height, header.height);
    EXPECT_EQ(extent->width, header.width);
    EXPECT_EQ(extent->channels, 3);
  }
}

TEST(Packed, RawPixelsAreThoseOfTheDecoder) {
  const PictureFolder pictures;
  PackOptions o = pictures.options();
  o.as = PackAs::pixels;
  pack_dataset(o);
  const auto packed = pictures.open_set(), folder = pictures.open();
  EXPECT_FALSE(packed->reads_parts());
  EXPECT_EQ(packed->fixed_height(), 0);
  ASSERT_EQ(packed->size(), folder->size());
  for (int64_t i = 0; i < folder->size(); ++i) {
    Bytes pixels(1 << 16);
    const PictureSize size = decode(folder->read(i), {}, pixels, "whole");
    pixels.resize(static_cast<size_t>(size.bytes()));
    const RawSample sample = packed->read(i);
    EXPECT_EQ((PictureSize{sample.height, sample.width, sample.channels}), size);
    EXPECT_EQ(content_of(sample), pixels);
  }
}

TEST(Packed, GreyPixelsOfOneSizeStayGrey) {
  const TemporaryFolder folder;
  Bytes images{0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5};
  for (int i = 0; i < 3 * 4 * 5; ++i) images.push_back(static_cast<uint8_t>(i * 37));
  folder.write("idx/train-images-idx3-ubyte", images);
  folder.write("idx/train-labels-idx1-ubyte", {0, 0, 8, 1, 0, 0, 0, 3, 2, 0, 1});
  PackOptions o;
  o.data_path = (folder.path() / "idx").string();
  o.output = (folder.path() / "set.cvt").string();
  EXPECT_EQ(pack_dataset(o).train, 3);
  const auto packed = open_dataset({o.output}), source = open_dataset({o.data_path});
  EXPECT_EQ(open_dataset({o.output, "auto", Split::validation}), nullptr);
  EXPECT_EQ(packed->channels(), 1);
  EXPECT_EQ(packed->fixed_height(), 4);
  EXPECT_EQ(packed->fixed_width(), 5);
  EXPECT_EQ(packed->class_names(), source->class_names());
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(content_of(packed->read(i)), source->read(i).bytes);
    EXPECT_EQ(packed->read(i).channels, 1);
    EXPECT_EQ(packed->label(i), source->label(i));
  }
}

// Flips or cuts a set of three tiny samples, and reads all that can be asked of it.
class Damage : public testing::Test {
protected:
  Damage() {
    folder_.write("data/train/a/1.ppm", numbered_ppm(2, 1, 1));
    folder_.write("data/train/b/2.ppm", numbered_ppm(1, 1, 2));
    folder_.write("data/val/a/3.ppm", numbered_ppm(1, 2, 3));
    folder_.write("data/val/b/4.ppm", numbered_ppm(1, 2, 4));
    PackOptions o;
    o.data_path = (folder_.path() / "data").string();
    o.output = set_;
    pack_dataset(o);
    good_ = read_bytes(set_);
    expected_ = all_of();
  }

  // Everything that the set says, or nothing where it is refused; throws anything but DataError on.
  std::vector<std::string> all_of() const {
    std::vector<std::string> all;
    try {
      for (const Split split : {Split::train, Split::validation}) {
        const auto set = open_packed(set_, split);
        if (!set) continue;
        all.insert(all.end(), set->class_names().begin(), set->class_names().end());
        for (int64_t i = 0; i < set->size(); ++i) {
          const Bytes bytes = content_of(set->read(i));
          all.emplace_back(bytes.begin(), bytes.end());
          all.push_back(set->name(i) + std::to_string(set->label(i)) + " " + std::to_string(set->extent(i)->height));
        }
      }
    } catch (const DataError&) {
      all.clear();
    }
    return all;
  }

  const TemporaryFolder folder_;
  const std::string set_ = (folder_.path() / "set.cvt").string();
  Bytes good_;
  std::vector<std::string> expected_;
};

TEST_F(Damage, EveryFlippedByteIsNoticedOrLiesInAGap) {
  ASSERT_EQ(expected_.size(), 12U);
  const PackedFile file(good_, set_);
  std::vector<bool> gap(good_.size());
  int64_t end = sizeof(PackedHeader);
  const auto fill = [&](uint64_t next) {
    for (auto at = static_cast<size_t>(end); at < next; ++at) gap[at] = true;
  };
  for (int64_t i = 0; i < file.size(); ++i) {
    fill(file.entry(i).offset);
    end = static_cast<int64_t>(file.entry(i).offset + file.entry(i).bytes);
  }
  fill(file.header().index_offset);
  for (size_t at = 0; at < good_.size(); ++at) {
    Bytes bad = good_;
    bad[at] = static_cast<uint8_t>(bad[at] ^ 1U << at % 8);
    folder_.write("set.cvt", bad);
    const auto found = all_of();
    EXPECT_EQ(found.empty(), !gap[at]) << "byte " << at;
    EXPECT_TRUE(found.empty() || found == expected_) << "byte " << at;
  }
}

TEST_F(Damage, EveryCutIsNoticed) {
  for (size_t size = 0; size < good_.size(); ++size) {
    folder_.write("set.cvt", Bytes(good_.begin(), good_.begin() + static_cast<std::ptrdiff_t>(size)));
    EXPECT_TRUE(all_of().empty()) << size;
  }
  folder_.write("set.cvt", good_ + Bytes{0});
  EXPECT_TRUE(all_of().empty()) << "a byte more";
}

TEST_F(Damage, OfASampleIsThatSamplesError) {
  Bytes bad = good_;
  ++bad[PackedFile(good_, set_).entry(1).offset + 3];
  folder_.write("set.cvt", bad);
  const auto set = open_packed(set_, Split::train);
  EXPECT_EQ(content_of(set->read(0)), numbered_ppm(2, 1, 1));
  EXPECT_THAT(message_of<DataError>([&] { set->read(1); }),
              testing::AllOf(testing::StartsWith(set_ + "/train/b/2.ppm: "), HasSubstr("checksum")));
}

TEST_F(Damage, AFileThatBecomesShorterEndsNoProcess) {
  const auto set = open_packed(set_, Split::train);
  std::filesystem::resize_file(set_, 100);
  EXPECT_THAT(message_of<DataError>([&] { set->read(0); }), HasSubstr("became shorter"));
}

TEST_F(Damage, WhatTheIndexSaysOutlivesTheFile) {
  folder_.write("data/train/a/1.ppm", numbered_ppm(90, 90, 1));  // so that the index is on other pages than the header
  PackOptions o;
  o.data_path = (folder_.path() / "data").string();
  o.output = (folder_.path() / "larger.cvt").string();
  pack_dataset(o);
  const auto set = open_packed(o.output, Split::train);
  std::filesystem::resize_file(o.output, 100);
  EXPECT_EQ(set->label(1), 1);
  EXPECT_EQ(set->name(1), o.output + "/train/b/2.ppm");
  EXPECT_EQ(set->extent(0)->height, 90);
  set->expect(std::array<int64_t, 2>{0, 1});
  EXPECT_THAT(message_of<DataError>([&] { set->read(1); }), HasSubstr("became shorter"));
}

// A picture is decoded from what read() gave, whatever becomes of the file meanwhile.
TEST_F(Damage, AFileThatWasReadOutlivesThePackedSet) {
  const auto set = open_packed(set_, Split::train);
  const RawSample sample = set->read(1);
  std::filesystem::resize_file(set_, 0);
  EXPECT_EQ(content_of(sample), numbered_ppm(1, 1, 2));
  uint8_t two[2];
  EXPECT_THAT(message_of<DataError>([&] { set->read_part(1, 0, two); }), HasSubstr("became shorter"));
}

TEST_F(Damage, ANewerVersionSaysSo) {
  Bytes newer = good_;
  PackedHeader header = PackedFile(good_, set_).header();
  header.version = 2;
  seal(header);
  std::copy_n(convolt::bytes_of(header).data(), sizeof header, newer.begin());
  folder_.write("set.cvt", newer);
  EXPECT_THAT(message_of<FormatError>([&] { open_packed(set_, Split::train); }),
              HasSubstr("version 2 of the format, expected 1"));
}

class PackedLoader : public LoaderTest {
protected:
  std::vector<std::vector<Row>> batches(const Dataset& set, bool training) const {
    LoaderOptions o = options(4, 3);
    o.augment.geometry = AugmentOptions::Geometry::random_resized_crop;
    o.training = training;
    // Nothing is shrunk: a decoder shrinks JPEGs otherwise than pixels.
    o.decode = {.max_side = 200, .full_decode = true};
    return take(*Loader::create(context(), set, o), 4, training ? 13 : 100);
  }
};

TEST_P(PackedLoader, BatchesAreThoseOfTheFolder) {
  for (const bool spoilt : {false, true}) {
    const PictureFolder pictures(spoilt);
    pack_dataset(pictures.options());
    PackOptions more = pictures.options("shards.cvt");
    more.shards = 4;
    pack_dataset(more);
    PackOptions raw = pictures.options("raw.cvt");
    raw.as = PackAs::pixels;
    pack_dataset(raw);
    for (const Split split : {Split::train, Split::validation}) {
      const bool training = split == Split::train;
      const auto expected = batches(*pictures.open(split), training);
      EXPECT_EQ(expected.size(), training ? 13U : 2U);
      EXPECT_EQ(batches(*pictures.open_set(split), training), expected);
      EXPECT_EQ(batches(*pictures.open_set(split, "shards-00000-of-00004.cvt"), training), expected);
      // Without the pictures that are left out there are other batches.
      const bool whole = !spoilt || !training;
      EXPECT_EQ(batches(*pictures.open_set(split, "raw.cvt"), training) == expected, whole);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, PackedLoader, testing::Values(Device::cpu(), Device::cuda()), device_name);

}  // namespace
}  // namespace convolt::test
