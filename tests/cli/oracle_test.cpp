// The program on weights and data that others made.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/main_job.h"
#include "core/philox.h"
#include "io/safetensors.h"

namespace convolt::test {
namespace {

using nlohmann::json;

// The oracle: weights trained elsewhere, and the logits another engine computed from them.
class Oracle : public testing::TestWithParam<std::tuple<const char*, const char*, int>> {};

std::string write_oracle_weights(const std::string& prefix, const TempFolder& folder) {
  const std::string raw = text_of(prefix + ".f32");
  std::ifstream table(prefix + ".tsv");
  std::string line;
  std::getline(table, line);
  std::vector<SafeTensor> tensors;
  while (std::getline(table, line)) {
    std::istringstream row(line);
    std::string name, shape;
    int64_t offset = 0, count = 0;
    row >> name >> shape >> offset >> count;
    SafeTensor t{
        name,
        "F32",
        {},
        std::as_bytes(std::span(raw)).subspan(static_cast<size_t>(offset) * 4, static_cast<size_t>(count) * 4)};
    std::istringstream extents(shape);
    for (std::string e; std::getline(extents, e, 'x');) t.shape.push_back(std::stoll(e));
    tensors.push_back(t);
  }
  write_safetensors(folder.path("weights.safetensors"), tensors);
  return folder.path("weights.safetensors");
}

TEST_P(Oracle, SameAccuracyAndLogits) {
  const char* data = std::getenv("CONVOLT_TEST_DATA");
  if (data == nullptr) GTEST_SKIP() << "CONVOLT_TEST_DATA names no folder of data sets";
  const auto& [model, file, correct] = GetParam();
  const TempFolder folder;
  const std::string oracle = std::string(data) + "/cifar10_oracle/",
                    weights = write_oracle_weights(oracle + file, folder);
  const Outcome o = convolt(std::string("eval --model ") + model + " --weights '" + weights + "' --data-path '" +
                            oracle + "test_batch_first1017.bin' --json --logits '" + folder.path("logits.npy") + "'");
  ASSERT_EQ(o.code, 0) << o.error;
  EXPECT_EQ(json::parse(o.out).at("samples"), 1017);
  EXPECT_EQ(json::parse(o.out).at("correct"), correct);
  const std::string npy = text_of(folder.path("logits.npy")),
                    expected = text_of(oracle + file + ".logits_test_first1017.f32");
  ASSERT_GT(npy.size(), expected.size());
  const auto* found = reinterpret_cast<const float*>(npy.data() + npy.size() - expected.size());
  const auto* truth = reinterpret_cast<const float*>(expected.data());
  float worst = 0;
  for (size_t i = 0; i < expected.size() / 4; ++i) worst = std::max(worst, std::fabs(found[i] - truth[i]));
  EXPECT_LT(worst, 2e-3);
}
INSTANTIATE_TEST_SUITE_P(Cifar10, Oracle,
                         testing::Values(std::tuple{"resnet20", "resnet20-12fca82f", 932},
                                         std::tuple{"resnet32", "resnet32-d509ac18", 944}));

TEST(RealData, FashionMnistTrainsFromItsCompressedFiles) {
  const char* data = std::getenv("CONVOLT_TEST_DATA");
  if (data == nullptr) GTEST_SKIP() << "CONVOLT_TEST_DATA names no folder of data sets";
  const Outcome o = convolt("train --data-path '" + std::string(data) +
                            "/fashion_mnist' --model lenet --steps 150 -b 64 --lr 0.05 --json --quiet");
  ASSERT_EQ(o.code, 0) << o.error;
  EXPECT_GT(json::parse(o.out).at("best_top1"), 0.4);  // chance is 0.1
}
}  // namespace
}  // namespace convolt::test
