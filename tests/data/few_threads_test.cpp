// A system that starts no more threads: a limit on them, or no room for their stacks.
#include <pthread.h>
#include <sys/resource.h>

#include <fstream>
#include <numeric>

#include "data/parallel_for.h"
#include "loader_fixture.h"
#include "support/message_of.h"

namespace convolt::test {
namespace {

using testing::MatchesRegex;

// While it lives, there is room for a few threads of 64 MiB and no more: a limit on threads does not bind root.
class FewThreads {
public:
  FewThreads() {
    pthread_attr_t attributes;
    pthread_getattr_default_np(&attributes);
    pthread_attr_getstacksize(&attributes, &old_stack_);
    set_stack(size_t{64} << 20);
    getrlimit(RLIMIT_AS, &old_);
    int64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlimit limit{static_cast<rlim_t>(pages * sysconf(_SC_PAGESIZE) + (int64_t{1} << 30)), old_.rlim_max};
    setrlimit(RLIMIT_AS, &limit);
  }
  ~FewThreads() {
    setrlimit(RLIMIT_AS, &old_);
    set_stack(old_stack_);
  }
  FewThreads(const FewThreads&) = delete;
  FewThreads& operator=(const FewThreads&) = delete;

private:
  static void set_stack(size_t bytes) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, bytes);
    pthread_setattr_default_np(&attributes);
  }
  size_t old_stack_ = 0;
  rlimit old_{};
};

TEST(TooFewThreads, EndALoaderWithASentence) {
  const auto context = Context::create(Device::cpu());
  const MemoryDataset dataset(8);
  LoaderOptions o;
  o.batch = 4;
  o.threads = 100;
  const FewThreads limit;
  EXPECT_THAT(message_of<Error>([&] { Loader::create(*context, dataset, o); }),
              MatchesRegex("only [1-9][0-9]? of 100 decode threads can be started "
                           "\\(Resource temporarily unavailable\\); use fewer \\(-j\\)"));
}

TEST(TooFewThreads, DoALoopAllTheSame) {
  const FewThreads limit;
  std::vector<int> times(10'000);
  parallel_for(
      10'000, 100, [&](int64_t i) { ++times[static_cast<size_t>(i)]; }, 1);
  EXPECT_THAT(times, testing::Each(1));
}

}  // namespace
}  // namespace convolt::test
