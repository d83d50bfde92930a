// convolt verify, as a user types it.
#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/program.h"

namespace convolt::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Verify : public testing::Test {
protected:
  Verify() {
    EXPECT_EQ(convolt("synth '" + at("set") +
                      "' --classes 3 --train-per-class 6 --val-per-class 4 --min-side 32 --max-side 40")
                  .code,
              0);
  }
  std::string at(const std::string& name) const { return folder_.path(name); }
  Outcome verify(const std::string& more = "") const {
    return convolt("verify --data-path '" + at("set") + "' " + more);
  }
  TempFolder folder_;
};

TEST_F(Verify, AGoodSetIsDescribed) {
  const Outcome o = verify();
  EXPECT_EQ(o.code, 0) << o.error;
  EXPECT_THAT(o.out, AllOf(HasSubstr("image folder, 3 classes"), HasSubstr("training: 18 pictures"),
                           HasSubstr("validation: 12 pictures"), HasSubstr("0 broken"), HasSubstr("formats  JPEG 18"),
                           HasSubstr("classes  arrow 6 .. ")));
  EXPECT_THAT(o.out, Not(HasSubstr("the same file")));
}

TEST_F(Verify, APictureOfMorePixelsThanAllowedIsBroken) {
  const Outcome o = verify("--max-pixels 1000");  // all have 32 x 32 and more
  EXPECT_EQ(o.code, 3);
  EXPECT_THAT(o.out, AllOf(HasSubstr("broken: 30\n"), HasSubstr("pixels: expected at most 1000")));
}

TEST_F(Verify, BrokenLeakedAndContradictoryPicturesAreNamed) {
  fs::copy(at("set/train/arrow/000.jpg"), at("set/val/arrow/copy.jpg"));
  fs::copy(at("set/train/arrow/001.jpg"), at("set/train/ell/copy.jpg"));
  fs::resize_file(at("set/train/ell/002.jpg"), 300);
  std::ofstream(at("set/val/ell/<b>.jpg")) << "no picture";
  const Outcome o = verify("--html '" + at("page.html") + "'");
  EXPECT_EQ(o.code, 3);
  EXPECT_THAT(o.out, AllOf(HasSubstr("broken: 2\n"), HasSubstr("ell/002.jpg: the JPEG ends before its picture does"),
                           HasSubstr("ell/<b>.jpg: not a picture"),
                           HasSubstr("the same file: 2 times; in both parts 1, of several classes 1"),
                           HasSubstr("arrow/000.jpg = " + at("set/val/arrow/copy.jpg") + "  (in both parts)"),
                           HasSubstr("ell/copy.jpg  (of several classes)")));
  const std::string page = text_of(at("page.html"));
  EXPECT_THAT(page, AllOf(HasSubstr("<h2>Broken pictures</h2>"), HasSubstr("&lt;b&gt;.jpg"), Not(HasSubstr("<b>.jpg")),
                          HasSubstr("<b>in both parts</b>"), HasSubstr("data:image/png;base64,")));

  const json j = json::parse(verify("--json -j 1").out);
  EXPECT_EQ(j.at("parts").at("training").at("pictures"), 19);
  EXPECT_EQ(j.at("parts").at("training").at("broken"), 1);
  EXPECT_EQ(j.at("parts").at("training").at("formats").at("JPEG"), 19);
  EXPECT_EQ(j.at("parts").at("validation").at("classes").at("ell"), 5);
  EXPECT_EQ(j.at("broken").size(), 2U);
  EXPECT_EQ(j.at("broken")[1].at("class"), "ell");
  ASSERT_EQ(j.at("identical").size(), 2U);
  EXPECT_EQ(j.at("identical")[0].at("in_both_parts"), true);
  EXPECT_EQ(j.at("identical")[0].at("of_several_classes"), false);
  EXPECT_EQ(j.at("identical")[1].at("of_several_classes"), true);

  const Outcome one = verify("--list 1");
  EXPECT_THAT(one.out, AllOf(HasSubstr("  and 1 more\n"), Not(HasSubstr("<b>.jpg"))));
}

TEST_F(Verify, APartByItselfWillDo) {
  fs::remove_all(at("set/train"));
  const Outcome o = verify();
  EXPECT_EQ(o.code, 0) << o.error;
  EXPECT_THAT(o.out, AllOf(HasSubstr("validation: 12 pictures"), Not(HasSubstr("training"))));
  EXPECT_EQ(convolt("verify --data-path '" + at("nowhere") + "'").code, 3);
  // A training part that is broken is none that is missing.
  fs::create_directories(at("set/train/ell"));
  const Outcome broken = verify();
  EXPECT_EQ(broken.code, 3);
  EXPECT_THAT(broken.error, HasSubstr("the training split lacks"));
  EXPECT_EQ(convolt("verify --data-path '" + at("set") + "' --html '" + at("none/page.html") + "'").code, 1);
}

}  // namespace
}  // namespace convolt::test
