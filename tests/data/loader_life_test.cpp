// How the loader stops, waits, fails and uses memory.
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <map>
#include <new>
#include <nlohmann/json.hpp>
#include <thread>

#include "io/trace.h"
#include "loader_fixture.h"
#include "support/gate.h"

namespace convolt::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class LoaderLife : public LoaderTest {};

TEST_P(LoaderLife, AWorkersExceptionNamesTheSampleAndComesInOrder) {
  MemoryDataset dataset(20);
  dataset.fail(13);
  LoaderOptions o = options(4, 4);
  o.training = false;
  const auto loader = Loader::create(context(), dataset, o);
  EXPECT_EQ(take(*loader, 4, 3).size(), 3U);
  Batch batch;
  EXPECT_EQ(message_of<Error>([&] { loader->next(batch); }), "sample13: the disk is on fire");
}

TEST_P(LoaderLife, AnErrorThatNamesItsSampleNamesItOnce) {
  MemoryDataset dataset(4);
  LoaderOptions o = options(4, 1);
  o.training = false;
  dataset.on_read = [] { throw Error("sample0: cannot be opened"); };
  Batch batch;
  EXPECT_EQ(message_of<Error>([&] { Loader::create(context(), dataset, o)->next(batch); }),
            "sample0: cannot be opened");
  dataset.on_read = [] { throw OutOfMemoryError("sample0: cannot be opened"); };
  EXPECT_EQ(message_of<OutOfMemoryError>([&] { Loader::create(context(), dataset, o)->next(batch); }),
            "sample0: cannot be opened");
}

// Outside of the decoding of a sample, which has errors of its own.
TEST_P(LoaderLife, AThreadWithoutMemoryEndsTheLoaderAndNotTheProgram) {
  struct Greedy final : MemoryDataset {
    using MemoryDataset::MemoryDataset;
    bool fetches_ahead() const override { throw std::bad_alloc(); }
  };
  const Greedy dataset(20);
  LoaderOptions o = options(4, 4);
  o.training = false;
  const auto loader = Loader::create(context(), dataset, o);
  Batch batch;
  EXPECT_THROW(loader->next(batch), std::bad_alloc);
  EXPECT_THROW(loader->restart(), std::bad_alloc);
}

TEST_P(LoaderLife, StopsAtAnyMoment) {
  const MemoryDataset dataset(64);
  for (int taken = 0; taken < 12; ++taken) {
    const auto loader = Loader::create(context(), dataset, options(8, 4));
    Batch batch;
    for (int i = 0; i < taken; ++i) {
      ASSERT_TRUE(loader->next(batch));
      if (i + 1 < taken || taken % 2 == 0) loader->release(batch);  // else it is still held at the end
    }
    if (taken % 3 == 0) {
      loader->stop();
      EXPECT_THAT(message_of<Error>([&] { loader->next(batch); }), HasSubstr("stopped"));
    }
  }
}

TEST_P(LoaderLife, StopWakesAWaitingConsumer) {
  MemoryDataset dataset(8);
  std::atomic<bool> open{false}, reached{false};
  dataset.on_read = [&] {
    reached = true;
    open.wait(false);
  };
  const auto loader = Loader::create(context(), dataset, options(4, 1));
  std::jthread stopper([&] {
    while (!reached) std::this_thread::yield();
    loader->stop();
    open = true;
    open.notify_all();
  });
  Batch batch;
  EXPECT_THROW(loader->next(batch), Error);
}

// The decoders never run further ahead than the slots, and the consumer never gets a batch early.
TEST_P(LoaderLife, DecodersWaitForFreeSlots) {
  MemoryDataset dataset(64);
  constexpr int kBatch = 4, kSlots = 3;
  std::atomic<int> reads{0}, allowed{kBatch * kSlots}, excess{0};
  dataset.on_read = [&] {
    if (++reads > allowed) ++excess;
  };
  LoaderOptions o = options(kBatch, 4);
  o.slots = kSlots;
  const auto loader = Loader::create(context(), dataset, o);
  for (int i = 0; i < 30; ++i) {
    while (reads < allowed) std::this_thread::yield();
    Batch batch;
    ASSERT_TRUE(loader->next(batch));
    allowed += kBatch;
    loader->release(batch);
  }
  EXPECT_EQ(excess, 0);
}

TEST_P(LoaderLife, MemoryIsAllocatedAtCreationAndNobodyWaitsOnTheDevice) {
  const MemoryDataset dataset(64);
  Counters& counters = context().counters();
  const int64_t bytes_before = counters.device_bytes;
  const auto loader = Loader::create(context(), dataset, options(8, 4));
  EXPECT_EQ(counters.device_bytes - bytes_before, 3 * loader->slot_bytes());
  const int64_t device = counters.device_allocations, pinned = counters.pinned_allocations, waits = counters.host_waits;
  Batch batch;
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(loader->next(batch));
    loader->release(batch);
  }
  EXPECT_EQ(counters.device_allocations, device);
  EXPECT_EQ(counters.pinned_allocations, pinned);
  EXPECT_EQ(counters.host_waits, waits);
}

TEST_P(LoaderLife, MemoryIsGivenBack) {
  const MemoryDataset dataset(64);
  const int64_t device = context().counters().device_bytes, pinned = context().counters().pinned_bytes;
  {
    const auto loader = Loader::create(context(), dataset, options(8, 4));
    Batch batch;
    ASSERT_TRUE(loader->next(batch));
  }
  EXPECT_EQ(context().counters().device_bytes, device);
  EXPECT_EQ(context().counters().pinned_bytes, pinned);
}

// The device's block is not overwritten while work that was submitted before release() still reads it.
TEST_P(LoaderLife, ReleasedBlocksAreReusedOnlyAfterTheComputeQueue) {
  const MemoryDataset dataset(64);
  LoaderOptions o = options(8, 4);
  o.slots = 2;
  const auto loader = Loader::create(context(), dataset, o);
  const auto expected = take(*Loader::create(context(), dataset, o), 8, 12);
  std::vector<std::vector<int32_t>> labels(12, std::vector<int32_t>(8));
  for (size_t i = 0; i < labels.size(); ++i) {
    Batch batch;
    ASSERT_TRUE(loader->next(batch));
    context().compute().run([](Stream) { std::this_thread::sleep_for(std::chrono::milliseconds(2)); });
    context().compute().copy(labels[i].data(), batch.labels, 8 * sizeof(int32_t));
    loader->release(batch);
  }
  context().compute().synchronize();
  for (size_t i = 0; i < labels.size(); ++i)
    for (size_t r = 0; r < 8; ++r) EXPECT_EQ(labels[i][r], expected[i][r].label) << i;
}

TEST_P(LoaderLife, OptionsAndCallsThatMakeNoSense) {
  const MemoryDataset dataset(4);
  const auto refusal = [&](const LoaderOptions& o) {
    return message_of<UsageError>([&] { Loader::create(context(), dataset, o); });
  };
  LoaderOptions o = options(0);
  EXPECT_THAT(refusal(o), HasSubstr("batch is 0: expected at least 1"));
  o = options(4, 0);
  EXPECT_THAT(refusal(o), HasSubstr("number of threads is 0"));
  o = options(4);
  o.slots = 1;
  EXPECT_THAT(refusal(o), HasSubstr("number of slots is 1: expected 2 to 1024"));
  EXPECT_THAT(message_of<DataError>([&] { Loader::create(context(), dataset, options(5)); }),
              HasSubstr("has 4 samples, fewer than one batch of 5"));

  o.slots = 2;
  o.memory = -1;
  EXPECT_THAT(refusal(o), HasSubstr("memory is -1: expected a number of bytes, or 0"));
  o.memory = 0;
  const auto loader = Loader::create(context(), dataset, o);
  Batch first, second;
  ASSERT_TRUE(loader->next(first));
  ASSERT_TRUE(loader->next(second));
  EXPECT_THAT(message_of<UsageError>([&] { loader->next(first); }), HasSubstr("all 2 slots of the loader are in use"));
  EXPECT_THROW(loader->restart(), UsageError);
  loader->release(first);
  EXPECT_THROW(loader->release(first), Error);
  EXPECT_THROW(loader->release(Batch{}), UsageError);
  loader->release(second);
}

// As many batches in flight as fit into the memory that there is, and the counters say that it is not more.
TEST_P(LoaderLife, MemoryBoundsTheBatchesInFlight) {
  const MemoryDataset dataset(64);
  LoaderOptions o = options(8, 1);
  o.slots = 5;
  const auto in_flight = [&] {
    const auto loader = Loader::create(context(), dataset, o);
    int taken = 0;
    for (Batch batch;; ++taken) {
      try {
        loader->next(batch);
      } catch (const UsageError&) {
        return taken;
      }
    }
  };
  EXPECT_EQ(in_flight(), 5);
  const int64_t slot = Loader::create(context(), dataset, o)->slot_bytes();
  const int64_t each = context().device().is_cuda() ? slot : 2 * slot, scratch = int64_t{1} << 10;
  for (const int slots : {2, 3, 4}) {
    o.memory = slots * each + scratch;
    const int64_t before = context().counters().pinned_bytes;
    const auto loader = Loader::create(context(), dataset, o);
    EXPECT_EQ(context().counters().pinned_bytes - before, slots * slot);
    EXPECT_EQ(in_flight(), slots);
  }
  o.memory = 2 * each - 1;
  EXPECT_THAT(message_of<UsageError>([&] { Loader::create(context(), dataset, o); }),
              AllOf(HasSubstr("two batches of 8 pictures take"), HasSubstr("--loader-memory")));
}

// Sleeps give lower bounds alone.
TEST_P(LoaderLife, TimesAreThoseOfReadingDecodingAndWaiting) {
  MemoryDataset dataset(64);
  const auto loader = Loader::create(context(), dataset, options(8, 1));
  EXPECT_EQ(loader->times().waited, 0);
  take(*loader, 8, 4);
  const LoaderTimes quick = loader->times();
  EXPECT_GT(quick.read, 0);
  EXPECT_GT(quick.decode, 0);
  MemoryDataset slow_set(64);
  slow_set.on_read = [] { std::this_thread::sleep_for(std::chrono::milliseconds(2)); };
  const auto slow = Loader::create(context(), slow_set, options(8, 1));
  take(*slow, 8, 4);
  const LoaderTimes times = slow->times();
  EXPECT_GE(times.read, 4 * 8 * 0.002);
  EXPECT_GE(times.waited, 8 * 0.002) << "at least for the first batch";
}

// Of each thread one thing after the other, and of each batch a copy.
TEST_P(LoaderLife, ATraceHasWhatEachThreadDid) {
  const MemoryDataset dataset(64);
  Trace trace;
  LoaderOptions o = options(8, 3);
  o.trace = &trace;
  EXPECT_EQ(take(*Loader::create(context(), dataset, o), 8, 10),
            take(*Loader::create(context(), dataset, options(8, 3)), 8, 10));
  std::map<int, std::string> tracks;
  std::map<int, double> ends;
  std::map<std::string, int> spans;
  const auto json = nlohmann::json::parse(trace.json());
  for (const auto& event : json.at("traceEvents")) {
    const int track = event.at("tid");
    if (event.at("name") == "thread_name") tracks[track] = event.at("args").at("name");
    if (event.at("ph") != "X") continue;
    const double begin = event.at("ts"), length = event.at("dur");
    EXPECT_GE(length, 0);
    EXPECT_GE(begin, ends[track] - 0.002) << "rounded";
    ends[track] = begin + length;
    ++spans[event.at("name")];
    EXPECT_EQ(event.at("name") == "copy", tracks[track] == "copies to the device");
  }
  EXPECT_EQ(tracks.size(), 4U);
  EXPECT_GE(spans["copy"], 10);
  EXPECT_GE(spans["read"], 80);
  EXPECT_EQ(spans["read"], spans["decode"]);
}

// Threads that cannot decode before a copy has ended sleep: they are not woken to look again.
TEST(LoaderSleep, NobodyPollsForTheEndOfACopy) {
  const auto context = Context::create(Device::cpu());
  const MemoryDataset dataset(64);
  LoaderOptions o;
  o.batch = 8;
  o.threads = 4;
  const auto loader = Loader::create(*context, dataset, o);
  Gate gate;
  gate.hold(context->compute());
  Batch batch;
  const auto take_one = [&] {
    ASSERT_TRUE(loader->next(batch));
    loader->release(batch);
  };
  // The first of three slots is used twice: its second copy waits for the step that is held, and all threads, sooner or
  // later, for that copy.
  for (int i = 0; i < 4; ++i) take_one();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const auto switches = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_nvcsw;
  };
  const long before = switches();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(switches() - before, 100);  // looking every 200 us would be 1,500 for each thread
  gate.open();
  for (int i = 0; i < 6; ++i) take_one();
  EXPECT_FALSE(gate.timed_out());
}

TEST_P(LoaderLife, ASetWithoutAnyPictureIsRefused) {
  MemoryDataset dataset(3);
  for (int i = 0; i < 3; ++i) dataset.spoil(i);
  EXPECT_THAT(message_of<DataError>([&] { Loader::create(context(), dataset, options(2)); }),
              HasSubstr("nor is any other of the 3 samples"));
}

INSTANTIATE_TEST_SUITE_P(Devices, LoaderLife, testing::Values(Device::cpu(), Device::cuda()), device_name);

}  // namespace
}  // namespace convolt::test
