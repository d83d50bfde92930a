// What people look at: tables and confusion matrices of eval, the sheet of augment, the report.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "cli/program.h"

namespace convolt::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// A short run on three classes, two of which have names that trouble tables, CSV and HTML.
class Looks : public testing::Test {
protected:
  static constexpr const char *kMarkup = "a<b>&\"c\",d", *kForeign = "łódź 船";

  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    ASSERT_EQ(convolt("synth '" + at("shapes") +
                      "' --classes 3 --train-per-class 8 --val-per-class 4 --min-side 32 --max-side 40")
                  .code,
              0);
    int next = 0;
    std::vector<std::string> classes;
    for (const auto& entry : std::filesystem::directory_iterator(at("shapes/train")))
      classes.push_back(entry.path().filename());
    for (const char* name : {kMarkup, kForeign}) {
      for (const char* split : {"/train/", "/val/"})
        std::filesystem::rename(at("shapes") + split + classes[static_cast<size_t>(next)], at("shapes") + split + name);
      ++next;
    }
    const Outcome t = convolt("train --data-path '" + at("shapes") +
                              "' --model resnet20 -b 8 --epochs 2 --log-every 1 -q --output-dir '" + at("run") + "'");
    ASSERT_EQ(t.code, 0) << t.error;
  }
  static void TearDownTestSuite() { delete folder_; }
  static std::string at(const std::string& name) { return folder_->path(name); }
  static std::string eval() {
    return "eval --checkpoint '" + at("run/best.safetensors") + "' --data-path '" + at("shapes") + "' -b 8 ";
  }
  static TempFolder* folder_;
};
TempFolder* Looks::folder_ = nullptr;

TEST_F(Looks, EvalPrintsTables) {
  const Outcome o = convolt(eval() + "--per-class --topk 2 --confusion '" + at("m.txt") + "'");
  ASSERT_EQ(o.code, 0) << o.error;
  for (const char* word :
       {"top-1 ", "top-2 ", "95 %: ", " of 12\n", "loss ", "ECE ", "temperature ", "precision", "łódź 船", "mean "})
    EXPECT_THAT(o.out, HasSubstr(word));
  EXPECT_EQ(o.error, "");
  EXPECT_THAT(text_of(at("m.txt")), StartsWith("true \\ predicted"));
}

// Every form of the matrix holds the same counts, and they add up.
TEST_F(Looks, TheMatrixAddsUp) {
  const Outcome o =
      convolt(eval() + "--per-class --json --confusion '" + at("m.csv") + "' --confusion '" + at("m.png") + "'");
  ASSERT_EQ(o.code, 0) << o.error;
  const json j = json::parse(o.out);
  int64_t correct = 0, all = 0;
  std::string csv = "true \\ predicted,\"a<b>&\"\"c\"\",d\"";
  for (size_t k = 1; k < 3; ++k) csv += "," + std::string(j["classes"][k]["name"]);
  EXPECT_THAT(text_of(at("m.csv")), StartsWith(csv + "\n"));
  for (size_t row = 0; row < 3; ++row) {
    std::string line;
    for (size_t column = 0; column < 3; ++column) {
      const int64_t count = j["confusion"][row][column];
      all += count;
      correct += row == column ? count : 0;
      line += "," + std::to_string(count);
    }
    EXPECT_EQ(j["classes"][row]["support"], 4);
    EXPECT_EQ(j["classes"][row]["correct"], j["confusion"][row][row]);
    EXPECT_THAT(text_of(at("m.csv")), HasSubstr(line + "\n"));
  }
  EXPECT_EQ(all, j["samples"]);
  EXPECT_EQ(correct, j["correct"]);
  EXPECT_LE(j["top1_interval"][0], j["top1"]);
  EXPECT_GE(j["top1_interval"][1], j["top1"]);
  EXPECT_LE(j["calibration"]["scaled"]["loss"], j["loss"]);
  EXPECT_GT(png_size(text_of(at("m.png"))).first, 200);
}

TEST_F(Looks, WhatCannotBeWrittenLosesNothing) {
  const Outcome e = convolt(eval() + "--confusion '" + at("nowhere/m.csv") + "'");
  EXPECT_EQ(e.code, 1);
  EXPECT_THAT(e.out, HasSubstr("top-1 "));
  EXPECT_THAT(e.error, HasSubstr("nowhere/m.csv"));
  const Outcome r = convolt("report '" + at("run") + "' --out '" + at("nowhere/r.html") + "'");
  EXPECT_EQ(r.code, 1);
  EXPECT_THAT(r.error, HasSubstr("nowhere/r.html"));
}

// Labels are places among the names: a data set that lacks a class of the network would be measured wrongly.
TEST_F(Looks, EvalSaysWhereClassesDiffer) {
  std::filesystem::create_directories(at("two/val"));
  for (const auto& entry : std::filesystem::directory_iterator(at("shapes/val")))
    if (entry.path().filename() != kMarkup)
      std::filesystem::copy(entry.path(), std::filesystem::path(at("two/val")) / entry.path().filename(),
                            std::filesystem::copy_options::recursive);
  const Outcome o = convolt("eval --checkpoint '" + at("run/best.safetensors") + "' --data-path '" + at("two") + "'");
  EXPECT_EQ(o.code, 0);
  EXPECT_THAT(o.error, HasSubstr("class 0 of '" + at("two") + "' is '"));
}

TEST_F(Looks, AugmentDrawsASheet) {
  const std::string flags = "augment --data-path '" + at("shapes") + "' --model resnet20 --rotate 20 --count 3 " +
                            "--variants 4 --color-jitter 0.4,0.4 --out '";
  const Outcome o = convolt(flags + at("sheet.png") + "'");
  ASSERT_EQ(o.code, 0) << o.error;
  EXPECT_THAT(o.out, HasSubstr("3 pictures"));
  EXPECT_THAT(o.out, HasSubstr("hflip 0.5, rotate 20, brightness 0.4, contrast 0.4"));
  const auto [width, height] = png_size(text_of(at("sheet.png")));
  EXPECT_GT(width, 5 * 96);  // 32 pixels, each drawn three times as wide
  EXPECT_GT(height, 3 * 96);
  ASSERT_EQ(convolt(flags + at("again.png") + "'").code, 0);
  EXPECT_EQ(text_of(at("again.png")), text_of(at("sheet.png")));
  ASSERT_EQ(convolt(flags + at("other.png") + "' --seed 1").code, 0);
  EXPECT_NE(text_of(at("other.png")), text_of(at("sheet.png")));
}

// Elements that are not closed, or closed in another order; empty when all is well.
std::string misnested(const std::string& page) {
  std::vector<std::string> open;
  for (size_t at = page.find('<'); at != std::string::npos; at = page.find('<', at + 1)) {
    const size_t end = page.find('>', at);
    const std::string tag = page.substr(at + 1, end - at - 1);
    const std::string name = tag.substr(tag[0] == '/' ? 1 : 0, tag.find_first_of(" /", 1) - (tag[0] == '/' ? 1 : 0));
    if (tag[0] == '!' || tag.back() == '/' || name == "meta" || name == "br" || name == "img") continue;
    if (tag[0] != '/') {
      open.push_back(name);
    } else if (open.empty() || open.back() != name) {
      return page.substr(at, 80);
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : open.back();
}

TEST_F(Looks, TheReportIsWholeAndAlone) {
  const Outcome o = convolt("report '" + at("run") + "' -b 8 --quiet --mistakes 5");
  ASSERT_EQ(o.code, 0) << o.error;
  EXPECT_EQ(o.out, at("run/report.html") + "\n");
  const std::string page = text_of(at("run/report.html"));
  for (const char* part : {"<h2>Training</h2>", "<h2>Classes</h2>", "<h2>Calibration</h2>", "<h2>Worst mistakes</h2>",
                           "Configuration", "Environment", "convolutions", "data_path", "top-1", "<polyline",
                           "a&lt;b&gt;&amp;&quot;c&quot;,d", "łódź 船", "data:image/png;base64,"})
    EXPECT_THAT(page, HasSubstr(part));
  EXPECT_EQ(misnested(page), "");
  EXPECT_THAT(page, Not(HasSubstr("://")));  // nothing is fetched
  EXPECT_THAT(page, Not(HasSubstr("a<b>")));
  EXPECT_THAT(page, HasSubstr("<tr><td>momentum</td><td>0.9</td></tr>"));
  ASSERT_EQ(convolt("report '" + at("run") + "' -b 8 -q --mistakes 5 --out '" + at("again.html") + "'").code, 0);
  EXPECT_EQ(text_of(at("again.html")), page);
}

// Without its pictures and metrics a run still has a report, which says what is missing.
TEST_F(Looks, TheReportOfARunWhoseDataIsGone) {
  std::filesystem::create_directory(at("moved"));
  std::filesystem::copy(at("run/best.safetensors"), at("moved/best.safetensors"));
  std::filesystem::rename(at("shapes"), at("elsewhere"));
  const Outcome gone = convolt("report '" + at("moved") + "'");
  const Outcome named = convolt("report '" + at("moved") + "' -b 8 --data-path '" + at("elsewhere") + "'");
  std::filesystem::rename(at("elsewhere"), at("shapes"));
  ASSERT_EQ(gone.code, 0) << gone.error;
  EXPECT_THAT(gone.error, HasSubstr("give --data-path"));
  EXPECT_THAT(gone.error, HasSubstr("no metrics.jsonl"));
  EXPECT_EQ(named.code, 0) << named.error;
  EXPECT_THAT(text_of(at("moved/report.html")), HasSubstr("<h2>Worst mistakes</h2>"));
}

}  // namespace
}  // namespace convolt::test
