#include "io/npy.h"

#include <gmock/gmock.h>

#include <cstring>
#include <vector>

#include "convolt/error.h"
#include "support/temp_folder.h"

namespace convolt::test {
namespace {

TEST(Npy, IsVersionOneAndByteForByteWhatNumpyWrites) {
  const TempFolder folder;
  const std::vector<float> values{0, 1, -2, 3.5F, 4, 5};
  write_npy(folder.path("a.npy"), values, 2, 3);
  std::string expected("\x93NUMPY\x01\x00\x76\x00", 10);
  expected += "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
  expected.resize(127, ' ');
  expected += '\n';
  expected.append(reinterpret_cast<const char*>(values.data()), 24);
  EXPECT_EQ(contents(folder.path("a.npy")), expected);
}

TEST(Npy, DataStartsOnAMultipleOf64ForAnyShape) {
  const TempFolder folder;
  for (int64_t rows = 1; rows < 1'000'000'000'000'000; rows *= 10) {
    write_npy(folder.path("a.npy"), {}, rows, 0);
    const std::string file = contents(folder.path("a.npy"));
    EXPECT_EQ(file.size() % 64, 0U) << rows;
    EXPECT_EQ(file.back(), '\n') << rows;
  }
}

TEST(Npy, RefusesAShapeThatIsNotTheDatas) {
  const TempFolder folder;
  const std::vector<float> values(5);
  EXPECT_THROW(write_npy(folder.path("a.npy"), values, 2, 3), UsageError);
  EXPECT_THROW(write_npy(folder.path("a.npy"), values, -1, -5), UsageError);
  EXPECT_THROW(write_npy(folder.path("a.npy"), {}, int64_t{1} << 32, int64_t{1} << 32), UsageError);
  EXPECT_THAT(folder.names(), testing::IsEmpty());
}

}  // namespace
}  // namespace convolt::test
