// Lists of pictures, and parts of data sets.
#include <gmock/gmock.h>

#include "convolt/dataset.h"
#include "convolt/error.h"
#include "io/csv.h"
#include "loader_fixture.h"
#include "test_files.h"

namespace convolt::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using Records = std::vector<std::vector<std::string>>;

Records records_of(const std::string& text, char separator = ',') {
  Records records;
  read_csv(text, separator, [&](int64_t, auto& fields) { records.push_back(fields); });
  return records;
}

TEST(Csv, ReadsWhatRfc4180Allows) {
  EXPECT_EQ(records_of("a,b\n1,2\n"), (Records{{"a", "b"}, {"1", "2"}}));
  EXPECT_EQ(records_of("\xEF\xBB\xBF"
                       "a,b\r\n\r\n,\r\n\n1,"),
            (Records{{"a", "b"}, {"", ""}, {"1", ""}}));
  EXPECT_EQ(records_of("\"x, \"\"y\"\"\nz\",\"\"\r\n\"1\""), (Records{{"x, \"y\"\nz", ""}, {"1"}}));
  EXPECT_EQ(records_of("ab,cd\n\"1\",\n\"\"\n"), (Records{{"ab", "cd"}, {"1", ""}}));
  EXPECT_EQ(records_of("a b\t\"c\td\"\n", '\t'), (Records{{"a b", "c\td"}}));
  EXPECT_EQ(records_of(""), Records{});
  for (const std::string text : {"a,b,c", "\"a\nb\",2", "x"}) {
    std::string fields = csv_field(text);
    EXPECT_EQ(records_of(fields + ",last"), (Records{{text, "last"}}));
  }
}

TEST(Csv, SaysWhereQuotesAreWrong) {
  const auto message = [](const std::string& text) { return message_of<FormatError>([&] { records_of(text); }); };
  EXPECT_THAT(message("a\nb,\"c\n\n"), HasSubstr("line 2: quotes are opened and never closed"));
  EXPECT_THAT(message("a\n\"b\nc\"d\n"), HasSubstr("line 3: text follows closing quotes"));
}

TEST(Manifest, NamesPicturesLabelsSplitsAndWeights) {
  const TemporaryFolder folder;
  folder.write("pictures/1", {1});
  folder.write("pictures/2", {2, 3, 4});
  folder.write("3", {5});
  const auto absolute = (folder.path() / "3").string();
  const std::pair<const char*, std::string> lists[] = {
      {"list.csv", "Label,filename,split,weight,note\ndog,pictures/1,train,,x\ncat," + absolute + ",,2.5,\n" +
                       "dog,pictures/2,val,1,\n"},
      {"list.tsv", "path\tclass\tset\tweight\npictures/1\tdog\ttraining\t1\n" + absolute +
                       "\tcat\t\t2.5\npictures/2\tdog\ttest\t\n"},
      {"list.jsonl", "{\"path\": \"pictures/1\", \"label\": \"dog\"}\n\n{\"image\": \"" + absolute +
                         "\", \"label\": \"cat\", \"weight\": 2.5, \"size\": [1, 2]}\n" +
                         "{\"split\": \"Validation\", \"label\": \"dog\", \"path\": \"pictures/2\"}"},
      {"list.txt", "path,label,split,weight\npictures/1,dog,,\n3,cat,,2.5\npictures/2,dog,val,\n"}};
  for (const auto& [name, text] : lists) {
    SCOPED_TRACE(name);
    const auto list = folder.write(name, bytes_of(text));
    const auto train = open_at(list), val = open_at(list, Split::validation);
    EXPECT_THAT(train->class_names(), ElementsAre("cat", "dog"));
    EXPECT_EQ(val->class_names(), train->class_names());
    ASSERT_EQ(train->size(), 2);
    ASSERT_EQ(val->size(), 1);
    EXPECT_EQ(train->label(0), 1);
    EXPECT_EQ(train->label(1), 0);
    EXPECT_EQ(train->weight(0), 1);
    EXPECT_EQ(train->weight(1), 2.5F);
    EXPECT_EQ(train->read(0).bytes, Bytes{1});
    EXPECT_EQ(train->read(1).bytes, Bytes{5});
    EXPECT_EQ(val->read(0).bytes, (Bytes{2, 3, 4}));
    EXPECT_EQ(val->name(0), (folder.path() / "pictures/2").string());
    uint8_t two[2];
    EXPECT_EQ(val->read_part(0, 2, two), 1U);
    EXPECT_EQ(two[0], 4);
    EXPECT_EQ(train->describe(), "list of pictures");
  }
}

// Numbers are the classes themselves, whether or not all occur; 01 is a name.
TEST(Manifest, LabelsThatAreNumbersAreIndices) {
  const TemporaryFolder folder;
  const auto numbers = open_at(folder.write("a.csv", bytes_of("path,label\nx,10\ny,2\n")));
  ASSERT_EQ(numbers->class_names().size(), 11U);
  EXPECT_EQ(numbers->class_names()[10], "10");
  EXPECT_EQ(numbers->label(0), 10);
  EXPECT_EQ(numbers->label(1), 2);
  const auto names = open_at(folder.write("b.csv", bytes_of("path,label\nx,10\ny,02\n")));
  EXPECT_THAT(names->class_names(), ElementsAre("02", "10"));
  const auto floats = open_at(folder.write("floats.csv", bytes_of("path,label\nx,10.0\ny,2.00\nz,2\nz,0.0\n")));
  EXPECT_EQ(floats->class_names().size(), 11U);
  EXPECT_EQ(floats->label(0), 10);
  EXPECT_EQ(floats->label(1), 2);
  EXPECT_EQ(floats->label(2), 2);
  EXPECT_EQ(floats->label(3), 0);
  for (const char* name : {"1.", ".0", "1.50", "01.0", "1.0.0", "00"})
    EXPECT_THAT(open_at(folder.write("d.csv", bytes_of("path,label\nx," + std::string(name) + "\n")))->class_names(),
                ElementsAre(name));
  EXPECT_EQ(open_at(folder.write("e.jsonl", bytes_of("{\"path\":\"x\",\"label\":2.0}")))->label(0), 2);
  EXPECT_EQ(open_at(folder.write("c.jsonl", bytes_of("{\"path\":\"x\",\"label\":3}")))->label(0), 3);
}

TEST(Manifest, OfSeveralNamesTheFirstCountsThatHasAValue) {
  const TemporaryFolder folder;
  const std::pair<const char*, const char*> lists[] = {
      {"list.csv", "image,class,label,file_name\nx,0,cat,1\n2,dog,,\n"},
      {"list.jsonl",
       "{\"image\": \"x\", \"class\": [0, 1], \"label\": \"cat\", \"file_name\": \"1\"}\n"
       "{\"image\": \"2\", \"class\": \"dog\", \"label\": null, \"target\": 3, \"file_name\": \"\"}\n"}};
  for (const auto& [name, text] : lists) {
    SCOPED_TRACE(name);
    const auto set = open_at(folder.write(name, bytes_of(text)));
    EXPECT_THAT(set->class_names(), ElementsAre("cat", "dog"));
    EXPECT_EQ(set->name(0), (folder.path() / "1").string());
    EXPECT_EQ(set->name(1), (folder.path() / "2").string());
  }
}

TEST(Manifest, WithoutASplitThereIsNoValidationSet) {
  const TemporaryFolder folder;
  const auto list = folder.write("list.csv", bytes_of("path,label\nx,a\n"));
  EXPECT_EQ(open_at(list, Split::validation), nullptr);
  const auto other = folder.write("val.csv", bytes_of("path,label,split\nx,a,val\n"));
  EXPECT_THAT(refusal(other), HasSubstr("has no training split"));
}

TEST(Manifest, AListThatIsTooLargeIsNotCalledAPicture) {
  const TemporaryFolder folder;
  const auto list = folder.write("list.csv", bytes_of("path,label\n"));
  std::filesystem::resize_file(list, (1 << 30) + 1);  // a hole
  EXPECT_EQ(refusal(list), "cannot read " + list.string() + ": expected at most 1073741824 bytes, found 1073741825");
}

TEST(Manifest, SaysWhichLineIsWrong) {
  const TemporaryFolder folder;
  const std::pair<const char*, const char*> cases[] = {
      {"a,b\n1,2\n", "line 1: has no header; expected one that names the columns, at least path and label"},
      {"path,label\nx,a\ny\n", "line 3: has 1 fields, expected 2 as in the header"},
      {"path,label\n,a\n", "line 2: has no path"},
      {"path,label\nx,\n", "line 2: has no label"},
      {"path,label,split\nx,a,tset\n", "line 2: has the split 'tset', expected train, val, validation or test"},
      {"path,label,weight\nx,a,-1\n", "line 2: has the weight '-1', expected a number above 0"},
      {"path,label,weight\nx,a,1e99\n", "the weight '1e99'"},
      {"path,label\n\"x,a\n", "line 2: quotes are opened"},
      {"path,label\n", "lists no pictures"},
      {"", "lists no pictures"}};
  for (const auto& [text, said] : cases)
    EXPECT_THAT(refusal(folder.write("list.csv", bytes_of(text))), HasSubstr(said)) << text;
  const std::pair<const char*, const char*> lines[] = {
      {"{\"path\": \"x\", \"label\": \"a\"}\n[1]\n", "line 2: has no JSON object"},
      {"{\"path\": \"x\"", "line 1: has no JSON object"},
      {"{\"path\": \"x\"}", "line 1: has no label"},
      {R"({"path": "x\u0000y", "label": "a"})", "line 1: has a NUL byte in its path"},
      {"{\"path\": \"x\", \"label\": [1, 2]}", "several labels are not supported"}};
  for (const auto& [text, said] : lines)
    EXPECT_THAT(refusal(folder.write("list.jsonl", bytes_of(text))), HasSubstr(said)) << text;
}

// Three classes of 10, 20 and 70.
class Counted final : public Dataset {
public:
  Counted() { class_names_ = {"a", "b", "c"}; }
  int64_t size() const override { return 100; }
  RawSample read(int64_t i) const override { return {{static_cast<uint8_t>(i)}, 1, 1, 1, label(i)}; }
  int32_t label(int64_t i) const override { return i % 10 == 0 ? 0 : i % 10 < 3 ? 1 : 2; }
  float weight(int64_t i) const override { return static_cast<float>(i + 1); }
  std::string name(int64_t i) const override { return "n" + std::to_string(i); }
  int channels() const override { return 1; }
  int fixed_height() const override { return 1; }
  int fixed_width() const override { return 1; }
};

std::vector<int> per_class(const std::vector<int64_t>& samples) {
  std::vector<int> counts(3);
  for (const int64_t i : samples) ++counts[static_cast<size_t>(Counted().label(i))];
  return counts;
}

TEST(StratifiedSample, HasItsPartOfEachClass) {
  const Counted data;
  EXPECT_THAT(per_class(stratified_sample(data, 10, 0)), ElementsAre(1, 2, 7));
  EXPECT_THAT(per_class(stratified_sample(data, 50, 3)), ElementsAre(5, 10, 35));
  EXPECT_THAT(per_class(stratified_sample(data, 3, 0)), ElementsAre(0, 1, 2));    // 0.3, 0.6, 2.1
  EXPECT_THAT(per_class(stratified_sample(data, 15, 0)), ElementsAre(2, 3, 10));  // 1.5, 3, 10.5; ties to the first
  EXPECT_EQ(stratified_sample(data, 0, 0).size(), 0U);
  EXPECT_EQ(stratified_sample(data, 1000, 0).size(), 100U);
}

TEST(StratifiedSample, IsAFunctionOfTheSeedInOrderAndWithoutRepeats) {
  const Counted data;
  const auto a = stratified_sample(data, 40, 7);
  EXPECT_EQ(a, stratified_sample(data, 40, 7));
  EXPECT_NE(a, stratified_sample(data, 40, 8));
  EXPECT_TRUE(std::is_sorted(a.begin(), a.end()));
  EXPECT_EQ(std::adjacent_find(a.begin(), a.end()), a.end());
  // Which ones is what recorded trainings and their validation rest on: it never changes.
  EXPECT_THAT(stratified_sample(data, 5, 1), ElementsAre(20, 24, 27, 41, 64));
}

TEST(Subset, IsThoseSamples) {
  const auto part = subset(std::make_shared<Counted>(), {99, 3, 3});
  ASSERT_EQ(part->size(), 3);
  EXPECT_EQ(part->read(0).bytes, Bytes{99});
  EXPECT_EQ(part->label(1), 2);
  EXPECT_EQ(part->weight(2), 4);
  EXPECT_EQ(part->name(0), "n99");
  EXPECT_EQ(part->channels(), 1);
  EXPECT_EQ(part->fixed_height(), 1);
  EXPECT_THAT(part->class_names(), ElementsAre("a", "b", "c"));
  EXPECT_THROW(subset(std::make_shared<Counted>(), {100}), UsageError);
  EXPECT_THROW(subset(std::make_shared<Counted>(), {-1}), UsageError);
}

}  // namespace
}  // namespace convolt::test
