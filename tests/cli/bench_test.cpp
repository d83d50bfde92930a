// convolt bench: what it prints and writes. How long things took is looked at by nobody here.
#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "support/cache_home.h"

namespace convolt::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr const char* kSmall = " --device cpu --samples 3 --seconds 0.001";
constexpr const char* kKernels =
    "bench kernels --filter bn_apply --tensor-size 0.01 --device cpu --samples 3 --seconds 0.001";

std::string flag(const char* name, const std::string& path) { return std::string(" ") + name + " '" + path + "'"; }

void expect_timing(const json& t) {
  EXPECT_GE(t["n"], 3);
  EXPECT_GT(t["ms_min"], 0);
  EXPECT_LE(t["ms_min"], t["ms_p10"]);
  EXPECT_LE(t["ms_p10"], t["ms_median"]);
  EXPECT_LE(t["ms_median"], t["ms_p90"]);
}

TEST(Bench, KernelsAsJson) {
  const Outcome o = convolt(std::string(kKernels) + " --json --threads 1");
  ASSERT_EQ(o.code, 0) << o.error;
  const json j = json::parse(o.out);
  EXPECT_EQ(j["bench"], "kernels");
  EXPECT_THAT(std::string(j["convolt"]), StartsWith("0."));
  EXPECT_THAT(std::string(j["device"]), HasSubstr("1 thread"));
  EXPECT_EQ(j["threads"], 1);
  EXPECT_GT(j["last_cache_bytes"], 0);
  EXPECT_GT(j["copy"]["gb_per_second_best"], 0);
  EXPECT_GE(j["copy"]["gb_per_second_best"], j["copy"]["gb_per_second_median"]);
  ASSERT_EQ(j["rows"].size(), 3);
  EXPECT_EQ(j["rows"][0]["name"], "bn_apply");
  for (const json& row : j["rows"]) {
    EXPECT_EQ(row["dtype"], "f32");
    EXPECT_EQ(row["shape"], "[1, 56, 56, 64]");
    EXPECT_GE(row["bytes"], 2 * 56 * 56 * 64 * 4);
    for (const char* how : {"cold", "warm"}) {
      expect_timing(row["timings"][how]);
      EXPECT_GT(row["timings"][how]["gb_per_second"], 0);
      EXPECT_GT(row["timings"][how]["fraction"], 0);
    }
  }
}

TEST(Bench, KernelsAsTableAndCsv) {
  const TempFolder folder;
  const Outcome o = convolt(std::string(kKernels) + flag("--output", folder.path("k.csv")));
  ASSERT_EQ(o.code, 0) << o.error;
  for (const char* word : {"copy ", "bn_apply add relu", "[1, 56, 56, 64]", "of copy", " %"})
    EXPECT_THAT(o.out, HasSubstr(word));
  const std::string csv = text_of(folder.path("k.csv"));
  EXPECT_THAT(csv, StartsWith("name,dtype,shape,timing,"));
  EXPECT_THAT(csv, HasSubstr("\nbn_apply relu,f32,\"[1, 56, 56, 64]\",warm,"));
  EXPECT_THAT(convolt(std::string(kKernels) + " --csv").out, StartsWith("name,dtype,shape,timing,"));
}

// The record of a run, as its times would be if everything had taken `factor` as long.
std::string scaled(const std::string& record, double factor) {
  json j = json::parse(record);
  for (json& row : j["rows"])
    for (json& t : row["timings"])
      for (const char* key : {"ms_median", "ms_p10", "ms_p90", "ms_min"}) t[key] = factor * t[key].get<double>();
  return j.dump();
}

TEST(Bench, ComparesWithARecord) {
  const TempFolder folder;
  const std::string record = folder.path("k.json"), quick = folder.path("quick.json"), slow = folder.path("slow.json");
  ASSERT_EQ(convolt(kKernels + flag("--output", record)).code, 0);
  std::ofstream(quick) << scaled(text_of(record), 1e-6);
  std::ofstream(slow) << scaled(text_of(record), 1e6);

  const Outcome same = convolt("bench compare --fail-if-slower '" + record + "' '" + record + "'");
  EXPECT_EQ(same.code, 0) << same.error;
  EXPECT_EQ(same.out, "6 timings compared: 0 slower, 0 quicker\n");
  const Outcome slower = convolt("bench compare '" + quick + "' '" + record + "'");
  EXPECT_EQ(slower.code, 0);
  EXPECT_THAT(slower.out, HasSubstr("bn_apply add relu f32"));
  EXPECT_THAT(slower.out, HasSubstr("6 timings compared: 6 slower, 0 quicker\n"));
  EXPECT_EQ(convolt("bench compare --fail-if-slower '" + quick + "' '" + record + "'").code, 1);

  const Outcome measured = convolt(kKernels + flag("--compare", quick) + " --fail-if-slower");
  EXPECT_EQ(measured.code, 1);
  EXPECT_THAT(measured.out, HasSubstr("6 timings compared: 6 slower, 0 quicker\n"));
  const Outcome quicker = convolt(kKernels + flag("--compare", slow) + " --fail-if-slower --json");
  EXPECT_EQ(quicker.code, 0);
  EXPECT_THAT(quicker.error, HasSubstr("0 slower, 6 quicker"));
  EXPECT_EQ(json::parse(quicker.out)["rows"].size(), 3);

  const Outcome fewer = convolt("bench kernels --filter 'bn_apply relu' --tensor-size 0.01" + std::string(kSmall) +
                                flag("--compare", slow));
  EXPECT_THAT(fewer.out, HasSubstr(" of the earlier record not measured now\n"));
  const Outcome another = convolt("bench step --model lenet -b 2" + flag("--compare", record));
  EXPECT_EQ(another.code, 2);
  EXPECT_EQ(another.out, "");  // before anything is measured
  EXPECT_THAT(another.error, HasSubstr("the earlier is of 'kernels', this of 'step'"));
}

TEST(Bench, StepOfANetwork) {
  const Outcome o = convolt(std::string("bench step --model lenet -b 2 --steps 1 --json") + kSmall);
  ASSERT_EQ(o.code, 0) << o.error;
  const json j = json::parse(o.out);
  const json& row = j["rows"][0];
  EXPECT_EQ(row["name"], "lenet");
  EXPECT_EQ(row["shape"], "n2 28x28x1");
  EXPECT_GT(row["memory"], 0);
  expect_timing(row["timings"]["step"]);
  expect_timing(row["timings"]["host"]);
  EXPECT_GT(row["timings"]["step"]["images_per_second"], 0);
  EXPECT_THAT(std::string(j["provider"]), HasSubstr("oneDNN"));
}

TEST(Bench, WhatIsWrongIsSaidBeforeAnythingIsMeasured) {
  const auto refusal = [](const std::string& arguments, int code, const char* text) {
    const Outcome o = convolt("bench " + arguments + kSmall);
    EXPECT_EQ(o.code, code) << arguments;
    EXPECT_EQ(o.out, "") << arguments;
    EXPECT_THAT(o.error, HasSubstr(text)) << arguments;
  };
  refusal("kernels --filter bn_fold --tensor-size 0.01 --output /nowhere/x.json", 1, "/nowhere/x.json");
  refusal("kernels --filter bn_fold --tensor-size 1e-9", 2, "--tensor-size: expected 0.001 to");
  refusal("kernels --autotune quick", 2, "--autotune");  // which only steps have a use for
  refusal("step --model lenet --memory-budget 12XB", 2, "expected a size such as 64K, 512M or 2G");
  refusal("step --model lenet --device h300", 2, "expected auto, cpu, cuda or cuda:N");
  EXPECT_THAT(convolt("inspect --model lenet --device h300").error, HasSubstr("expected auto, cpu, cuda, h200"));
}

TEST(Bench, SizesAreTypedAsTheyAreShown) {
  const auto shape = [](const std::string& budget) {
    const Outcome o = convolt("bench step --model resnet20 -b 16 --steps 1 --json --memory-budget " + budget + kSmall);
    EXPECT_EQ(o.code, 0) << o.error;
    return o.code == 0 ? std::string(json::parse(o.out)["rows"][1]["shape"]) : "";
  };
  EXPECT_THAT(shape("16.5MB"), HasSubstr("within 16500000 bytes"));
  EXPECT_THAT(shape("16.5MiB"), HasSubstr("within 17301504 bytes"));
  EXPECT_THAT(shape("0.02G"), HasSubstr("within 21474836 bytes"));
}

TEST(Bench, StepOfAnotherOptimizer) {
  const auto row = [](const char* flags) {
    const Outcome o = convolt(std::string("bench step --model lenet -b 2 --steps 1 --json") + kSmall + flags);
    EXPECT_EQ(o.code, 0) << o.error;
    return json::parse(o.out)["rows"][0];
  };
  const json adam = row(" --opt adam"), sgd = row(""), frozen = row(" --freeze weight$");
  EXPECT_EQ(adam["shape"], "n2 28x28x1, adam");
  EXPECT_GT(adam["memory"], sgd["memory"]);
  EXPECT_LT(frozen["bytes"], sgd["bytes"]);
}

// What a flag costs is told by the step without it, timed in turn.
TEST(Bench, StepWithinAMemoryBudget) {
  const std::string arguments = std::string("bench step --model resnet20 -b 16 --steps 1 --deterministic") + kSmall;
  const Outcome o = convolt(arguments + " --memory-budget 16M --json");
  ASSERT_EQ(o.code, 0) << o.error;
  const json rows = json::parse(o.out)["rows"];
  ASSERT_EQ(rows.size(), 2);
  EXPECT_EQ(rows[0]["shape"], "n16 32x32x3");
  EXPECT_EQ(rows[1]["shape"], "n16 32x32x3, deterministic, within 16777216 bytes");
  EXPECT_GT(rows[0]["memory"], 16 << 20);
  EXPECT_LE(rows[1]["memory"], 16 << 20);
  EXPECT_GT(rows[1]["bytes"], rows[0]["bytes"]);
  const Outcome table = convolt(arguments);
  EXPECT_THAT(table.out, HasSubstr("of the time and 1.00 of the memory without: "));
  const Outcome small = convolt(arguments + " --memory-budget 1M");
  EXPECT_EQ(small.code, 5);
  EXPECT_THAT(small.error, HasSubstr("the memory budget is 1M (1.0 MB); "));
}

TEST(Bench, ConvolutionsOfANetwork) {
  const std::string arguments = std::string("bench conv --model lenet -b 1") + kSmall;
  const Outcome o = convolt(arguments + " --json");
  ASSERT_EQ(o.code, 0) << o.error;
  const json j = json::parse(o.out);
  EXPECT_GT(j["matmul"]["gflop_per_second_best"], 0);
  EXPECT_EQ(j["rows"][0]["name"], "conv1 fprop");
  for (const json& row : j["rows"]) {
    EXPECT_GT(row["flops"], 0);
    int chosen = 0;
    for (const json& t : row["timings"]) {
      expect_timing(t);
      EXPECT_GT(t["gflop_per_second"], 0);
      EXPECT_GT(t["fraction"], 0);
      chosen += t.value("chosen", false) ? 1 : 0;
    }
    EXPECT_EQ(chosen, 1) << row;
  }
  const Outcome table = convolt(arguments + " --filter wgrad");
  for (const char* word : {"conv2 wgrad", "chosen", "of roofline", "matrix product", "of these, in a step"})
    EXPECT_THAT(table.out, HasSubstr(word));
  EXPECT_THAT(table.out, Not(HasSubstr("fprop")));
}

TEST(Bench, AugmentationOfAModel) {
  const Outcome o = convolt(std::string("bench augment --model resnet20 -b 2 --rotate 15 --json") + kSmall);
  ASSERT_EQ(o.code, 0) << o.error;
  const json row = json::parse(o.out)["rows"][0];
  EXPECT_EQ(row["shape"], "n2 375x500 to 32x32");
  EXPECT_EQ(row["images"], 2);
  EXPECT_GT(row["timings"]["cold"]["images_per_second"], 0);
}

TEST(Bench, LoaderByThreads) {
  const TempFolder folder;
  ASSERT_EQ(convolt("synth '" + folder.path("s") + "' --classes 2 --train-per-class 8 --val-per-class 1").code, 0);
  const std::string arguments =
      "bench loader --model resnet20 -b 4 -j 1,3 --batches 1" + flag("--data-path", folder.path("s")) + kSmall;
  const Outcome o = convolt(arguments + " --json");
  ASSERT_EQ(o.code, 0) << o.error;
  const json j = json::parse(o.out);
  ASSERT_EQ(j["rows"].size(), 2);
  EXPECT_EQ(j["rows"][1]["shape"], "j3 n4 32x32");
  EXPECT_GT(j["rows"][1]["timings"]["batch"]["images_per_second"], 0);
  EXPECT_THAT(convolt(arguments).out,
              testing::AllOf(HasSubstr("the first batch was there "), HasSubstr("times the first")));
  const json crops = json::parse(convolt(arguments + " --crops --json").out);
  EXPECT_EQ(crops["rows"][0]["name"], "loader crops");
  EXPECT_EQ(crops["rows"][0]["dtype"], "f32");
}

TEST(Bench, IndexesThePicturesOfTheLoaderUnlessToldNotTo) {
  const CacheHome cache;
  const TempFolder folder;
  ASSERT_EQ(convolt("synth '" + folder.path("s") + "' --classes 2 --train-per-class 8 --val-per-class 1").code, 0);
  const std::string command =
      "bench loader --model resnet20 -b 4 -j 1 --batches 1" + flag("--data-path", folder.path("s")) + kSmall;
  const Outcome without = convolt(command + " --no-index");
  ASSERT_EQ(without.code, 0) << without.error;
  EXPECT_TRUE(cache.folder().names().empty());
  for (int start = 0; start < 2; ++start) {
    const Outcome o = convolt(command);
    ASSERT_EQ(o.code, 0) << o.error;
    EXPECT_EQ(o.error, without.error);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(cache.folder().path("convolt/index")), {}), 1);
  }
}

TEST(Bench, DrawsARoofline) {
  const TempFolder folder;
  const Outcome o = convolt("bench roofline --model lenet -b 1 --tensor-size 0.01 --out '" + folder.path("r.png") +
                            "'" + flag("--output", folder.path("r.json")) + kSmall);
  ASSERT_EQ(o.code, 0) << o.error;
  EXPECT_THAT(o.out, HasSubstr("r.png: copy "));
  EXPECT_EQ(png_size(text_of(folder.path("r.png"))), (std::pair{1200, 760}));
  EXPECT_GT(json::parse(text_of(folder.path("r.json")))["rows"].size(), 15U);
}

}  // namespace
}  // namespace convolt::test
