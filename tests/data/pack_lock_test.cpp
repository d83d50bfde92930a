// Two that pack into one file.
#include <gmock/gmock.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <utility>

#include "convolt/error.h"
#include "packed_fixture.h"
#include "support/message_of.h"

namespace {
// What happens between the opening of a file and its lock; returns an error, or 0 for the lock itself.
std::function<int()> before_lock;
}  // namespace

// In place of the C library's.
extern "C" int flock(int file, int operation) {
  if (const auto act = std::exchange(before_lock, nullptr))
    if (const int error = act(); error != 0) {
      errno = error;
      return -1;
    }
  return static_cast<int>(syscall(SYS_flock, file, operation));
}

namespace convolt::test {
namespace {

using testing::HasSubstr;

TEST(PackLock, AFileThatIsFinishedMeanwhileStaysAsItIs) {
  const PictureFolder pictures;
  PackOptions o = pictures.options();
  const std::string partial = o.output + ".partial";
  before_lock = [&] {
    std::ofstream(partial) << "whole";
    std::filesystem::rename(partial, o.output);
    return 0;
  };
  EXPECT_THAT(message_of<UsageError>([&] { pack_dataset(o); }), HasSubstr("is there already"));
  EXPECT_EQ(read_bytes(o.output), (Bytes{'w', 'h', 'o', 'l', 'e'}));
  EXPECT_FALSE(std::filesystem::exists(partial));
}

TEST(PackLock, OneWriterAtATime) {
  const PictureFolder pictures;
  PackOptions o = pictures.options();
  before_lock = [&] { return EWOULDBLOCK; };
  EXPECT_THAT(message_of<Error>([&] { pack_dataset(o); }), HasSubstr("another process is writing it"));
  before_lock = [&] { return ENOLCK; };
  pack_dataset(o);
  EXPECT_TRUE(std::filesystem::exists(o.output));
}

}  // namespace
}  // namespace convolt::test
