#include "io/atomic_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <fstream>

#include "convolt/error.h"
#include "support/killed_process.h"
#include "support/message_of.h"
#include "support/temp_folder.h"

namespace convolt::test {
namespace {

namespace fs = std::filesystem;

void write(const AtomicFolder& folder) { std::ofstream(folder.path() + "/file") << "whole"; }

TEST(AtomicFolder, AppearsWhenItIsWhole) {
  const TempFolder at;
  {
    AtomicFolder folder(at.path("above/set/"));
    write(folder);
    EXPECT_FALSE(fs::exists(at.path("above/set")));
    folder.commit();
  }
  EXPECT_TRUE(fs::exists(at.path("above/set/file")));
  EXPECT_EQ(std::distance(fs::directory_iterator(at.path("above")), {}), 1);
}

TEST(AtomicFolder, TakesOverNothingOfAKilledProcess) {
  const TempFolder at;
  const auto first = std::make_unique<AtomicFolder>(at.path("set"));
  write(*first);
  AtomicFolder second(at.path("set"));
  EXPECT_NE(second.path(), first->path());
  EXPECT_TRUE(fs::is_empty(second.path()));
}

TEST(AtomicFolder, LeavesNothingOfWhatFailed) {
  const TempFolder at;
  {
    const AtomicFolder folder(at.path("set"));
    write(folder);
  }
  EXPECT_TRUE(fs::is_empty(at.path("")));
}

// Through a link too, which a rename would not follow.
TEST(AtomicFolder, FillsAnEmptyFolderAndNoOther) {
  const TempFolder at;
  fs::create_directory(at.path("set"));
  fs::create_directory_symlink(at.path("set"), at.path("link"));
  { const AtomicFolder failed(at.path("link")); }
  EXPECT_TRUE(fs::is_empty(at.path("set")));
  {
    AtomicFolder folder(at.path("link"));
    write(folder);
    folder.commit();
  }
  EXPECT_TRUE(fs::exists(at.path("set/file")));
  EXPECT_EQ(std::distance(fs::directory_iterator(at.path("set")), {}), 1);
  EXPECT_THAT(message_of<UsageError>([&] { AtomicFolder(at.path("set")); }),
              testing::HasSubstr("is not an empty folder"));
}

// Of another machine or container a process may be unknown here, and at work.
TEST(AtomicFolder, WhatItsWriterStillHasIsNoLeftover) {
  const TempFolder at;
  const std::string unknown = at.path(".partial-" + std::to_string(killed_process()) + "-0");
  const AtomicFolder folder(at.path(""));
  fs::rename(folder.path(), unknown);
  EXPECT_THAT(message_of<UsageError>([&] { AtomicFolder(at.path("")); }), testing::HasSubstr("is not an empty folder"));
  EXPECT_TRUE(fs::exists(unknown));
}

TEST(AtomicFolder, LeftoversOfKilledProcessesAreNothing) {
  const TempFolder at;
  const std::string killed = at.path(".partial-" + std::to_string(killed_process()) + "-0"),
                    alive = at.path(".partial-" + std::to_string(::getppid()) + "-0");
  fs::create_directories(killed + "/train");
  fs::create_directory(alive);
  EXPECT_THAT(message_of<UsageError>([&] { AtomicFolder(at.path("")); }), testing::HasSubstr("is not an empty folder"));
  EXPECT_TRUE(fs::exists(killed));
  fs::remove(alive);
  {
    AtomicFolder folder(at.path(""));
    write(folder);
    folder.commit();
  }
  EXPECT_EQ(at.names(), std::vector<std::string>{"file"});
}

}  // namespace
}  // namespace convolt::test
