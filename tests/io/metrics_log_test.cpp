#include "io/metrics_log.h"

#include <gmock/gmock.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "convolt/error.h"
#include "io/file_size_limit.h"
#include "support/temp_folder.h"

namespace convolt::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(MetricsLog, EachLineIsThereAtOnceAndInTheGivenOrder) {
  const TempFolder folder;
  const std::string path = folder.path("metrics.jsonl");
  MetricsLog log = MetricsLog::create(path);
  log.append({{"step", 1}, {"loss", 0.5}});
  EXPECT_EQ(contents(path), "{\"step\":1,\"loss\":0.5}\n");
  log.append({{"step", 2}, {"accuracy", 1}});
  EXPECT_EQ(contents(path), "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"accuracy\":1}\n");
}

TEST(MetricsLog, NonFiniteNumbersAreNull) {
  const TempFolder folder;
  MetricsLog::create(folder.path("m")).append({{"a", NAN}, {"b", INFINITY}, {"c", {-INFINITY, 1}}});
  EXPECT_EQ(contents(folder.path("m")), "{\"a\":null,\"b\":null,\"c\":[null,1]}\n");
}

TEST(MetricsLog, CreateEmptiesWhatWasThere) {
  const TempFolder folder;
  put_contents(folder.path("m"), "{\"step\":9}\n");
  MetricsLog::create(folder.path("m")).append({{"step", 1}});
  EXPECT_EQ(contents(folder.path("m")), "{\"step\":1}\n");
}

TEST(MetricsLog, ResumeCutsBackToTheStep) {
  struct Case {
    const char* before;
    const char* after;  // resume at step 2
  };
  const Case cases[] = {
      {"{\"step\":1}\n{\"step\":2,\"loss\":1}\n{\"step\":3}\n{\"step\":4}\n",
       "{\"step\":1}\n{\"step\":2,\"loss\":1}\n"},
      {"{\"step\":1}\n{\"step\":2}\n", "{\"step\":1}\n{\"step\":2}\n"},
      {"{\"step\":1}\n{\"step\":2}\n{\"ste", "{\"step\":1}\n{\"step\":2}\n"},  // torn
      {"{\"step\":1}\n{\"step\":2}", "{\"step\":1}\n"},                        // torn before its newline
      {"{\"step\":3}\n", ""},
      {"", ""},
      {"{\"step\":1}\n\nnoise\n[1]\n{\"loss\":1}\n{\"step\":\"1\"}\n{\"step\":0}\n", "{\"step\":1}\n{\"step\":0}\n"},
  };
  const TempFolder folder;
  for (const Case& c : cases) {
    put_contents(folder.path("m"), c.before);
    MetricsLog::resume(folder.path("m"), 2).append({{"step", 3}, {"again", true}});
    EXPECT_EQ(contents(folder.path("m")), std::string(c.after) + "{\"step\":3,\"again\":true}\n") << c.before;
    EXPECT_THAT(folder.names(), ElementsAre("m")) << c.before;
  }
}

TEST(MetricsLog, ResumeWithoutAFileStartsOne) {
  const TempFolder folder;
  MetricsLog::resume(folder.path("m"), 5).append({{"step", 6}});
  EXPECT_EQ(contents(folder.path("m")), "{\"step\":6}\n");
}

TEST(MetricsLog, ALineThatDoesNotFitIsTakenBack) {
  const TempFolder folder;
  MetricsLog log = MetricsLog::create(folder.path("m"));
  log.append({{"step", 1}});
  {
    const FileSizeLimit limit(20);
    EXPECT_THROW(log.append({{"step", 2}, {"loss", 0.5}}), Error);
  }
  EXPECT_EQ(contents(folder.path("m")), "{\"step\":1}\n");
  log.append({{"step", 3}});
  EXPECT_EQ(contents(folder.path("m")), "{\"step\":1}\n{\"step\":3}\n");
}

TEST(MetricsTable, OneRowForEachObject) {
  const TempFolder folder;
  const std::string path = folder.path("metrics.csv");
  MetricsTable table = MetricsTable::create(path, {"step", "loss", "rate", "best"});
  EXPECT_EQ(contents(path), "step,loss,rate,best\n");
  table.append({{"step", 1}, {"loss", 0.1}, {"best", true}, {"other", 7}});
  table.append({{"step", 12}, {"loss", NAN}, {"rate", 1e-30}, {"best", false}});
  EXPECT_EQ(contents(path), "step,loss,rate,best\n1,0.1,,1\n12,,1e-30,0\n");
}

TEST(MetricsTable, ResumeCutsBackToTheStep) {
  const TempFolder folder;
  const std::pair<const char*, const char*> cases[] = {
      {"step,loss\n1,2\n2,3\n3,4\n", "step,loss\n1,2\n2,3\n"},
      {"step,loss\n1,2\n2,3", "step,loss\n1,2\n"},  // torn
      {"step,los", "step,loss\n"},
      {"step,other\n1,5\nnoise\n,1\n1\n", "step,loss\n1,5\n"},
  };
  for (const auto& [before, after] : cases) {
    put_contents(folder.path("m"), before);
    MetricsTable::resume(folder.path("m"), {"step", "loss"}, 2).append({{"step", 3}, {"loss", 1}});
    EXPECT_EQ(contents(folder.path("m")), std::string(after) + "3,1\n") << before;
  }
  MetricsTable::resume(folder.path("new"), {"step", "loss"}, 2);
  EXPECT_EQ(contents(folder.path("new")), "step,loss\n");
}

TEST(MetricsLog, ErrorsNameThePath) {
  const TempFolder folder;
  const auto message = [](const std::string& path, const std::string& reason) {
    return ThrowsMessage<Error>(AllOf(HasSubstr(path), HasSubstr(reason)));
  };
  EXPECT_THAT([&] { MetricsLog::create(folder.path("none/m")); }, message(folder.path("none/m"), "No such file"));
  EXPECT_THAT([&] { MetricsLog::resume(folder.path(), 1); }, message(folder.path(), "it is a directory"));
  MetricsLog full = MetricsLog::create("/dev/full");
  EXPECT_THAT([&] { full.append({{"step", 1}}); }, message("/dev/full", "No space left on device"));
}

}  // namespace
}  // namespace convolt::test
