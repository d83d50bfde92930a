// The recipes that the program carries.
#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/main_job.h"

namespace convolt::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class Recipes : public MainJob {};

// Each is printed as it stands, and with a data set as flags that say the same once more.
TEST_F(Recipes, ArePrintedInFull) {
  int recipes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(CONVOLT_SOURCE_DIR "/recipes")) {
    const std::string name = entry.path().stem().string();
    SCOPED_TRACE(name);
    const Outcome text = convolt("train --recipe " + name + " --dry-run");
    ASSERT_EQ(text.code, 0) << text.error;
    EXPECT_EQ(text.out, text_of(entry.path().string()));
    const std::string model = name == "airbench94" ? "" : "--model resnet20 ";  // its groups are of its own layers
    const Outcome all =
        convolt("train --data-path '" + at("shapes") + "' " + model + "--recipe " + name + " --dry-run");
    ASSERT_EQ(all.code, 0) << all.error;
    std::ofstream(at("printed.toml")) << all.out;
    EXPECT_EQ(convolt("train --config '" + at("printed.toml") + "' --dry-run").out, all.out);
    ++recipes;
  }
  EXPECT_GE(recipes, 9);
}

// Table 2 of arXiv 2110.00476.
TEST_F(Recipes, TimmsProceduresAreThoseOfTheirTable) {
  const auto printed = [&](const std::string& name) {
    return "\n" + convolt("train --data-path '" + at("shapes") + "' --recipe " + name + " --dry-run").out;
  };
  const auto expect = [](const std::string& text, std::initializer_list<const char*> lines) {
    for (const std::string line : lines) EXPECT_THAT(text, HasSubstr("\n" + line + "\n"));
  };
  for (const char* name : {"timm-a1", "timm-a2", "timm-a3"})
    expect(printed(name), {"model = \"resnet50\"", "batch-size = 2048", "opt = \"lamb\"", "lr-scheduler = \"cosine\"",
                           "lr-warmup-epochs = 5", "loss = \"bce\"", "cutmix = 1", "eps = 1e-06",
                           "betas = [0.9, 0.999]", "clip-grad = 1", "norm-weight-decay = 0", "bias-weight-decay = 0",
                           "val-crop-size = 224", "val-resize-size = 235", "random-erase = 0", "ema-decay = 0"});
  expect(printed("timm-a1"),
         {"epochs = 600", "lr = 0.005", "wd = 0.01", "label-smoothing = 0.1", "drop-path = 0.05", "repeats = 3",
          "mixup = 0.2", "train-crop-size = 224", "auto-augment = \"rand-m7-n2-mstd0.5-p0.5-inc1\""});
  expect(printed("timm-a2"), {"epochs = 300", "lr = 0.005", "wd = 0.02", "label-smoothing = 0", "drop-path = 0.05",
                              "repeats = 3", "mixup = 0.1", "train-crop-size = 224", "bce-target-thresh = 0.2",
                              "auto-augment = \"rand-m7-n2-mstd0.5-p0.5-inc1\""});
  expect(printed("timm-a3"),
         {"epochs = 100", "lr = 0.008", "wd = 0.02", "label-smoothing = 0", "repeats = 1", "mixup = 0.1",
          "train-crop-size = 160", "bce-target-thresh = 0.2", "auto-augment = \"rand-m6-n2-mstd0.5-p0.5-inc1\""});
}

// Shortened, and on small pictures.
TEST_F(Recipes, TimmsProceduresTrain) {
  for (const char* name : {"timm-a1", "timm-a2", "timm-a3"}) {
    SCOPED_TRACE(name);
    const Outcome o = convolt("train --data-path '" + at("shapes") + "' --recipe " + name +
                              " --model resnet20 --train-crop-size 32 --val-crop-size 32 --val-resize-size 34 -b 8 "
                              "--epochs 1 --lr-warmup-epochs 0.5 --quiet --json");
    ASSERT_EQ(o.code, 0) << o.error;
    EXPECT_EQ(json::parse(o.out).at("steps"), 6);
  }
  const Outcome whole = convolt("train --data-path '" + at("shapes") +
                                "' --recipe timm-a3 --train-crop-size 64 --val-crop-size 64 --val-resize-size 64 -b 8 "
                                "--drop-path 0.05 --steps 2 --lr-warmup-epochs 0 --quiet --json");
  ASSERT_EQ(whole.code, 0) << whole.error;
  EXPECT_EQ(json::parse(whole.out).at("steps"), 2);
}

}  // namespace
}  // namespace convolt::test
