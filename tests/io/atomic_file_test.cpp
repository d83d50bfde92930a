#include "io/atomic_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>

#include "convolt/error.h"
#include "io/file_size_limit.h"
#include "support/temp_folder.h"

namespace convolt::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

void write_atomically(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

TEST(AtomicFile, AppearsAtCommitAndNotBefore) {
  const TempFolder folder;
  const std::string path = folder.path("best.safetensors");
  {
    AtomicFile file(path);
    file.write("one ");
    file.write("two");
    EXPECT_FALSE(std::filesystem::exists(path));
    EXPECT_EQ(folder.names().size(), 1U);  // in the same folder, or the rename could cross file systems
    file.commit();
    EXPECT_EQ(contents(path), "one two");
  }
  EXPECT_THAT(folder.names(), ElementsAre("best.safetensors"));
}

TEST(AtomicFile, WithoutCommitTheOldFileStays) {
  const TempFolder folder;
  put_contents(folder.path("a"), "old");
  {
    AtomicFile file(folder.path("a"));
    file.write("new");
  }
  EXPECT_EQ(contents(folder.path("a")), "old");
  EXPECT_THAT(folder.names(), ElementsAre("a"));
}

TEST(AtomicFile, ReplacesALongerFileWhole) {
  const TempFolder folder;
  write_atomically(folder.path("a"), "a long old file");
  write_atomically(folder.path("a"), "new");
  EXPECT_EQ(contents(folder.path("a")), "new");
}

TEST(AtomicFile, WritersOfOnePathDoNotMix) {
  const TempFolder folder;
  AtomicFile first(folder.path("a")), second(folder.path("a"));
  first.write("first");
  second.write("second");
  second.commit();
  EXPECT_EQ(contents(folder.path("a")), "second");
  first.commit();
  EXPECT_EQ(contents(folder.path("a")), "first");
  EXPECT_THAT(folder.names(), ElementsAre("a"));
}

TEST(AtomicFile, FullDiskKeepsTheOldFile) {
  const TempFolder folder;
  const std::string path = folder.path("a");
  put_contents(path, "old");
  {
    const FileSizeLimit limit(1000);
    EXPECT_THAT([&] { write_atomically(path, std::string(5000, 'x')); },
                ThrowsMessage<Error>(AllOf(HasSubstr("cannot write " + path), HasSubstr("File too large"))));
  }
  EXPECT_EQ(contents(path), "old");
  EXPECT_THAT(folder.names(), ElementsAre("a"));
}

TEST(AtomicFile, WritesIntoTheWorkingFolder) {
  const TempFolder folder;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  write_atomically("plain", "text");
  std::filesystem::current_path(before);
  EXPECT_EQ(contents(folder.path("plain")), "text");
}

TEST(AtomicFile, MissingFolder) {
  const TempFolder folder;
  EXPECT_THAT([&] { AtomicFile(folder.path("none/a")); },
              ThrowsMessage<Error>(AllOf(HasSubstr(folder.path("none/a")), HasSubstr("No such file or directory"))));
}

TEST(AtomicFile, FolderThatIsAFile) {
  const TempFolder folder;
  put_contents(folder.path("file"), "");
  EXPECT_THAT([&] { AtomicFile(folder.path("file/a")); }, ThrowsMessage<Error>(HasSubstr("Not a directory")));
}

TEST(AtomicFile, RefusesDirectoriesAndDevices) {
  const TempFolder folder;
  std::filesystem::create_directory(folder.path("sub"));
  EXPECT_THAT([&] { AtomicFile(folder.path("sub")); }, ThrowsMessage<Error>(HasSubstr("it is a directory")));
  EXPECT_THAT(folder.names(), ElementsAre("sub"));
  // Renaming over a device would replace it.
  EXPECT_THAT([] { AtomicFile("/dev/full"); }, ThrowsMessage<Error>(HasSubstr("not a regular file")));
}

TEST(AtomicFile, FollowsLinks) {
  namespace fs = std::filesystem;
  const TempFolder folder;
  for (const char* sub : {"links", "real"}) fs::create_directory(folder.path(sub));
  put_contents(folder.path("real/a"), "old");
  fs::create_symlink("../links/again", folder.path("links/a"));
  fs::create_symlink(folder.path("real/a"), folder.path("links/again"));
  fs::create_symlink("../real/new", folder.path("links/dangling"));
  write_atomically(folder.path("links/a"), "new");
  write_atomically(folder.path("links/dangling"), "made");
  EXPECT_EQ(contents(folder.path("real/a")), "new");
  EXPECT_EQ(contents(folder.path("real/new")), "made");
  EXPECT_EQ(fs::read_symlink(folder.path("links/a")), "../links/again");
  EXPECT_EQ(fs::read_symlink(folder.path("links/dangling")), "../real/new");
}

TEST(AtomicFile, RefusesLinksThatLeadNowhere) {
  const TempFolder folder;
  std::filesystem::create_symlink("circle", folder.path("circle"));
  std::filesystem::create_symlink("none/a", folder.path("dangling"));
  EXPECT_THAT([&] { AtomicFile(folder.path("circle")); }, ThrowsMessage<Error>(HasSubstr("round in a circle")));
  EXPECT_THAT([&] { AtomicFile(folder.path("dangling")); },
              ThrowsMessage<Error>(AllOf(HasSubstr(folder.path("dangling")), HasSubstr("No such file or directory"))));
}

// Even where it is a regular file in the end, as /dev/stdout may be: nothing is committed here, or it would be gone.
TEST(AtomicFile, RefusesWhatIsTheSystems) {
  const TempFolder folder;
  put_contents(folder.path("a"), "old");
  const Descriptor open(folder.path("a"), O_RDWR);
  const std::string number = std::to_string(open.get());
  std::filesystem::create_symlink("/dev/fd/" + number, folder.path("link"));
  for (const std::string& path :
       {"/proc/self/fd/" + number, "/dev/fd/" + number, folder.path("link"), std::string("/dev/none")})
    EXPECT_THAT([&] { AtomicFile{path}; }, ThrowsMessage<Error>(HasSubstr("is the system's own"))) << path;
}

TEST(AtomicFile, ATargetThatBecomesADirectoryFailsAtCommit) {
  const TempFolder folder;
  {
    AtomicFile file(folder.path("a"));
    std::filesystem::create_directory(folder.path("a"));
    EXPECT_THAT([&] { file.commit(); }, ThrowsMessage<Error>(HasSubstr("Is a directory")));
  }
  EXPECT_THAT(folder.names(), ElementsAre("a"));
}

TEST(AtomicFile, ANameThatIsTooLong) {
  const TempFolder folder;
  EXPECT_THAT([&] { AtomicFile(folder.path(std::string(300, 'n'))); },
              ThrowsMessage<Error>(HasSubstr("File name too long")));
  EXPECT_THAT(folder.names(), IsEmpty());
}

TEST(ReadFile, GivesTheBytes) {
  const TempFolder folder;
  const std::string text("a\0b\xff", 4);
  put_contents(folder.path("a"), text);
  EXPECT_THAT(read_file(folder.path("a"), 4), ElementsAre('a', 0, 'b', 0xff));
  put_contents(folder.path("empty"), "");
  EXPECT_THAT(read_file(folder.path("empty"), 0), IsEmpty());
}

TEST(ReadFile, ReadsFilesWhoseSizeIsNotKnown) {
  const auto bytes = read_file("/proc/self/status", 1 << 20);  // st_size is 0
  EXPECT_THAT(std::string(bytes.begin(), bytes.end()), HasSubstr("Threads:"));
}

TEST(ReadFile, ErrorsNamePathAndReason) {
  const TempFolder folder;
  const auto message = [](const std::string& path, const std::string& reason) {
    return ThrowsMessage<DataError>(AllOf(HasSubstr("cannot read " + path + ": "), HasSubstr(reason)));
  };
  EXPECT_THAT([&] { read_file(folder.path("none"), 9); }, message(folder.path("none"), "No such file or directory"));
  EXPECT_THAT([&] { read_file(folder.path(), 9); }, message(folder.path(), "it is a directory"));
  EXPECT_THAT([&] { read_file("/dev/null", 9); }, message("/dev/null", "not a regular file"));
  EXPECT_THAT([&] { read_file("/proc/self/mem", 1 << 20); }, message("/proc/self/mem", "Input/output error"));
  put_contents(folder.path("a"), "12345");
  EXPECT_THAT([&] { read_file(folder.path("a"), 4); }, message(folder.path("a"), "expected at most 4 bytes, found 5"));
  ASSERT_EQ(mkfifo(folder.path("pipe").c_str(), 0600), 0);
  EXPECT_THAT([&] { read_file(folder.path("pipe"), 9); }, message(folder.path("pipe"), "not a regular file"));
}

}  // namespace
}  // namespace convolt::test
