// One network answers pictures however they come: batches, files, memory, several callers.
#include "convolt/predictor.h"

#include <gmock/gmock.h>

#include <fstream>
#include <thread>

#include "convolt/error.h"
#include "convolt/network_file.h"
#include "data/jpeg_writer.h"
#include "support/device.h"
#include "support/temp_folder.h"
#include "train/made_set.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using Logits = std::vector<std::vector<float>>;

class OneFile final : public Dataset {
public:
  explicit OneFile(RawSample file) : file_(std::move(file)) { file_.label = 0; }
  int64_t size() const override { return 1; }
  RawSample read(int64_t) const override { return file_; }

private:
  RawSample file_;
};

class PredictorTest : public testing::Test {
protected:
  PredictorTest() {
    made_network(graph_);
    params_.emplace(context_, graph_, 5);
  }
  Predictor predictor(int batch, int workers = 2) {
    return {graph_, *params_, made_card(), {.batch = batch, .workers = workers}};
  }
  static std::vector<RawSample> pictures(const MadeSet& data) {
    std::vector<RawSample> all;
    for (int64_t i = 0; i < data.size(); ++i) all.push_back(data.read(i));
    return all;
  }
  static Logits logits_of(const std::vector<Prediction>& predictions) {
    Logits all;
    for (const Prediction& p : predictions) all.push_back(p.logits);
    return all;
  }

  Context& context_ = context_of(Device::cpu());
  Graph graph_;
  std::optional<Params> params_;
};

TEST_F(PredictorTest, SaysWhatTheEvaluatorSays) {
  const MadeSet data(37, {5});
  Logits expected, found;
  Evaluator evaluator(graph_, *params_, data, {.batch = 8, .preprocessing = made_pictures()});
  evaluator.run([&](int64_t, const float* row, bool) { expected.emplace_back(row, row + 3); });
  predictor(8, 3).predict(data, [&](int64_t i, const Prediction& p) {
    EXPECT_EQ(i, static_cast<int64_t>(found.size()));
    found.push_back(p.logits);
    EXPECT_EQ(p.error, i == 5 ? "broken on purpose" : "");
  });
  expected[5].clear();
  EXPECT_EQ(found, expected);
}

TEST_F(PredictorTest, ViewsAreThoseOfTheEvaluator) {
  const MadeSet data(37, {5});
  ModelCard card = made_card();
  card.preprocessing.geometry = AugmentOptions::Geometry::resize_centre_crop;
  card.preprocessing.resize = 16;
  for (const int views : {2, 10}) {
    Logits expected, found;
    Evaluator evaluator(graph_, *params_, data, {.batch = 8, .views = views, .preprocessing = card.preprocessing});
    evaluator.run([&](int64_t, const float* row, bool) { expected.emplace_back(row, row + 3); });
    Predictor(graph_, *params_, card, {.batch = 8, .views = views}).predict(data, [&](int64_t, const Prediction& p) {
      found.push_back(p.logits);
    });
    expected[5].clear();
    EXPECT_EQ(found, expected) << views;
  }
  EXPECT_THROW(Predictor(graph_, *params_, card, {.views = 4}), UsageError);
}

// A JPEG of many times the crop, of sides that no scale divides: decoded at a part of its size it would have other
// edges.
TEST_F(PredictorTest, CropsAreThoseOfTheWholeJpeg) {
  RawSample file;
  file.bytes = write_jpeg({.name = ""}, 203, 151);
  ModelCard card = made_card();
  card.preprocessing.geometry = AugmentOptions::Geometry::resize_centre_crop;
  card.preprocessing.resize = 16;
  const auto said = [&](int views, bool full_decode) {
    Predictor p(graph_, *params_, card, {.batch = 1, .decode = {.full_decode = full_decode}, .views = views});
    return p.predict({&file, 1})[0].logits;
  };
  EXPECT_NE(said(1, false), said(1, true));
  for (const int views : {5, 10}) EXPECT_EQ(said(views, false), said(views, true)) << views;
  const OneFile data(file);
  for (const int views : {1, 5, 10}) {
    Evaluator evaluator(graph_, *params_, data, {.batch = 1, .views = views, .preprocessing = card.preprocessing});
    Logits found;
    evaluator.run([&](int64_t, const float* row, bool) { found.emplace_back(row, row + 3); });
    EXPECT_EQ(found, Logits{said(views, false)}) << views;
  }
}

TEST_F(PredictorTest, AnyNumberOfPicturesInBatchesOfAnySize) {
  const std::vector<RawSample> all = pictures(MadeSet(20));
  const Logits expected = logits_of(predictor(20).predict(all));
  for (const int batch : {1, 7}) {
    Predictor p = predictor(batch);
    for (const size_t count : {size_t{0}, size_t{1}, size_t{7}, size_t{8}, size_t{20}}) {
      const Logits found = logits_of(p.predict(std::span(all).first(count)));
      ASSERT_EQ(found.size(), count);
      for (size_t i = 0; i < count; ++i)
        for (size_t k = 0; k < 3; ++k) EXPECT_NEAR(found[i][k], expected[i][k], 1e-5) << batch << ", " << i;
    }
  }
}

// Sizes mixed, so that memory must grow, and every way in which a picture can be bad.
TEST_F(PredictorTest, OneBadPictureCostsTheOthersNothing) {
  const RawSample good = MadeSet(1).read(0);
  RawSample large{std::vector<uint8_t>(200 * 300 * 3, 90), 200, 300, 3};
  RawSample cut = good, planes = good, text{{'h', 'i'}};
  cut.bytes.pop_back();
  planes.channels = 2;
  Predictor p = predictor(3);
  const auto answers = p.predict(std::vector<RawSample>{good, cut, large, planes, good, text, good});
  for (const size_t i : {0, 2, 4, 6}) EXPECT_THAT(answers[i].logits, testing::SizeIs(3)) << answers[i].error;
  EXPECT_EQ(answers[4].logits, answers[0].logits);
  EXPECT_EQ(answers[6].logits, answers[0].logits);
  EXPECT_THAT(answers[1].error, HasSubstr("143 bytes of pixels: expected 12 x 12 x 1"));
  EXPECT_THAT(answers[3].error, HasSubstr("12 x 12 x 2: expected a height, a width and 1 or 3 channels"));
  EXPECT_THAT(answers[5].error, HasSubstr("not a picture"));
  for (const size_t i : {1, 3, 5}) {
    EXPECT_THAT(answers[i].logits, IsEmpty());
    EXPECT_THAT(answers[i].probabilities(), IsEmpty());
    EXPECT_THAT(answers[i].top(), IsEmpty());
  }
}

TEST_F(PredictorTest, AnErrorOfNoWordsIsNoPrediction) {
  struct Silent final : MadeSet {
    using MadeSet::MadeSet;
    RawSample read(int64_t) const override { throw DataError(""); }
  };
  predictor(2).predict(Silent(3), [](int64_t, const Prediction& p) {
    EXPECT_EQ(p.error, "it cannot be used");
    EXPECT_THAT(p.logits, IsEmpty());
  });
}

// The system would open the part before that byte.
TEST_F(PredictorTest, ANameWithANulByteIsThatOfNoFile) {
  const TempFolder folder;
  put_contents(folder.path("a.ppm"), "P5 1 1 255\n7");
  const std::string path = folder.path("a.ppm");
  const auto answers = predictor(2).predict_files({path + '\0' + "b", path, std::string(1, '\0')});
  EXPECT_EQ(answers[0].error, "a name with a NUL byte is that of no file");
  EXPECT_EQ(answers[1].error, "");
  EXPECT_EQ(answers[2].error, "a name with a NUL byte is that of no file");
}

TEST_F(PredictorTest, ACheckpointBringsAllItNeeds) {
  const TempFolder folder;
  ModelCard card = made_card();
  card.network = write_network(graph_, {.name = "made", .size = MadeSet::kSide});
  save_checkpoint(folder.path("made.safetensors"), *params_, card);
  const RawSample pixels = MadeSet(1).read(0);
  {
    std::ofstream file(folder.path("bar.pgm"), std::ios::binary);
    file << "P5 12 12 255\n";
    file.write(reinterpret_cast<const char*>(pixels.bytes.data()), static_cast<std::streamsize>(pixels.bytes.size()));
  }
  Predictor p(context_, folder.path("made.safetensors"), {.batch = 4});
  EXPECT_EQ(p.card().class_names, made_card().class_names);
  const auto files = p.predict_files({folder.path("bar.pgm"), folder.path("none.pgm")});
  const auto expected = predictor(4).predict({&pixels, 1})[0].logits;
  for (size_t k = 0; k < 3; ++k)  // a file is decoded to RGB, whose weights sum up to 0.9999
    EXPECT_NEAR(files[0].logits[k], expected[k], 1e-3);
  EXPECT_THAT(files[1].error, HasSubstr("cannot be opened"));
  EXPECT_THAT(files[1].error, Not(HasSubstr("none.pgm")));
  EXPECT_THROW(Predictor(context_, folder.path("none")), DataError);
}

TEST_F(PredictorTest, AnAnswerMayThrow) {
  const std::vector<RawSample> all = pictures(MadeSet(12));
  const MadeSet data(12);
  Predictor p = predictor(4);
  const Logits expected = logits_of(p.predict(all));
  EXPECT_THROW(p.predict(data, [](int64_t, const Prediction&) { throw std::runtime_error("enough"); }),
               std::runtime_error);
  EXPECT_EQ(logits_of(p.predict(all)), expected);
}

TEST_F(PredictorTest, SeveralThreadsTakeTurns) {
  const std::vector<RawSample> all = pictures(MadeSet(20));
  Predictor p = predictor(8);
  const Logits expected = logits_of(p.predict(all));
  Logits found[3];
  {
    std::vector<std::jthread> threads;
    for (Logits& f : found) threads.emplace_back([&] { f = logits_of(p.predict(all)); });
  }
  for (const Logits& f : found) EXPECT_EQ(f, expected);
}

TEST_F(PredictorTest, SharesWeightsThatChange) {
  const RawSample picture = MadeSet(1).read(0);
  Predictor p = predictor(1);
  const auto before = p.predict({&picture, 1})[0].logits;
  const int bias = params_->find("fc.bias");
  std::vector<float> values = params_->values(bias);
  for (float& v : values) v += 1;
  params_->set_values(bias, values);
  EXPECT_FLOAT_EQ(p.predict({&picture, 1})[0].logits[0], before[0] + 1);
}

TEST_F(PredictorTest, OptionsOutOfRange) {
  EXPECT_THROW(predictor(0), UsageError);
  EXPECT_THROW(predictor(1, 0), UsageError);
  EXPECT_THROW(Predictor(graph_, *params_, made_card(), {.decode = {.max_side = -1}}), UsageError);
}

TEST(Prediction, ByHand) {
  const Prediction p{.logits = {0, 2, 0, 2}, .error = {}};
  EXPECT_THAT(p.top(3), testing::ElementsAre(1, 3, 0));
  EXPECT_THAT(p.top(9), testing::ElementsAre(1, 3, 0, 2));
  EXPECT_NEAR(p.probabilities()[1], 0.5 / (1 + std::exp(-2.0)), 1e-12);
}

}  // namespace
}  // namespace convolt::test
