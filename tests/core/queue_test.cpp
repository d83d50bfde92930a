// The CPU as a device: order, events between queues, errors. Under ThreadSanitizer a wait that a test forgets is a
// report.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "convolt/error.h"
#include "support/gate.h"

namespace convolt::test {
namespace {

class QueueTest : public testing::Test {
protected:
  std::unique_ptr<Context> context_ = Context::create(Context::Options{Device::cpu(), 1});
  Queue& compute_ = context_->compute();
  Queue& copies_ = context_->copies();
};

TEST_F(QueueTest, WorkRunsInOrderOnAnotherThread) {
  std::vector<int> order;
  std::thread::id where;
  for (int i = 0; i < 100; ++i) compute_.run([&, i](Stream) { order.push_back(i); });
  compute_.run([&](Stream s) {
    where = std::this_thread::get_id();
    EXPECT_FALSE(s.cuda);
  });
  compute_.synchronize();
  ASSERT_EQ(order.size(), 100U);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
  EXPECT_NE(where, std::this_thread::get_id());
}

TEST_F(QueueTest, RunReturnsBeforeTheWorkIsDone) {
  Gate gate;
  gate.hold(compute_);
  bool done = false;
  compute_.run([&](Stream) { done = true; });
  const Event event = compute_.record();
  EXPECT_FALSE(event.reached());
  gate.open();
  event.wait();
  EXPECT_TRUE(event.reached());
  EXPECT_TRUE(done);
}

TEST_F(QueueTest, CopiesKeepTheirPlaceInTheQueue) {
  int from = 1, to = 0, seen = 0;
  compute_.run([&](Stream) { from = 2; });
  compute_.copy(&to, &from, sizeof from);
  compute_.run([&](Stream) {
    seen = to;
    from = 3;
  });
  compute_.synchronize();
  EXPECT_EQ(seen, 2);
  EXPECT_EQ(to, 2);
}

TEST_F(QueueTest, AQueueWaitsForAnEventOfAnother) {
  Gate gate;
  gate.hold(copies_);
  int value = 0, seen = -1;
  copies_.run([&](Stream) { value = 7; });
  compute_.wait(copies_.record());
  compute_.run([&](Stream) { seen = value; });
  const Event done = compute_.record();
  EXPECT_FALSE(done.reached());
  gate.open();
  done.wait();
  EXPECT_EQ(seen, 7);
}

// The way of a batch: two buffers, filled by one queue and used by the other, each waiting for the other's events only.
TEST_F(QueueTest, TwoBuffersBetweenTwoQueues) {
  std::vector<int> buffers[2] = {std::vector<int>(64), std::vector<int>(64)}, sums;
  Event filled[2], used[2];
  for (int i = 0; i < 50; ++i) {
    const size_t k = static_cast<size_t>(i % 2);
    copies_.wait(used[k]);
    copies_.run([&, i, k](Stream) { std::fill(buffers[k].begin(), buffers[k].end(), i); });
    filled[k] = copies_.record();
    compute_.wait(filled[k]);
    compute_.run([&, k](Stream) {
      int sum = 0;
      for (const int v : buffers[k]) sum += v;
      sums.push_back(sum);
    });
    used[k] = compute_.record();
  }
  compute_.synchronize();
  for (int i = 0; i < 50; ++i) EXPECT_EQ(sums[static_cast<size_t>(i)], 64 * i);
}

TEST_F(QueueTest, AnErrorSurfacesOnceAtTheNextSynchronisation) {
  bool skipped = true;
  compute_.run([](Stream) { throw DeviceError("first"); });
  compute_.run([](Stream) { throw DeviceError("second"); });
  compute_.run([&](Stream) { skipped = false; });
  try {
    compute_.synchronize();
    FAIL() << "expected an error";
  } catch (const DeviceError& e) {
    EXPECT_STREQ(e.what(), "first");
  }
  EXPECT_TRUE(skipped);  // work behind an error does not run
  EXPECT_NO_THROW(compute_.synchronize());
  bool runs = false;
  compute_.run([&](Stream) { runs = true; });
  compute_.synchronize();
  EXPECT_TRUE(runs);
}

TEST_F(QueueTest, AnEventBehindAnErrorThrowsIt) {
  const Event before = compute_.record();
  compute_.run([](Stream) { throw DataError("bad"); });
  const Event after = compute_.record();
  EXPECT_NO_THROW(before.wait());
  EXPECT_THROW(after.wait(), DataError);
  EXPECT_THROW(compute_.synchronize(), DataError);
}

TEST_F(QueueTest, AnErrorPassesToTheQueueThatWaitsForIt) {
  bool ran = false;
  copies_.run([](Stream) { throw DeviceError("lost"); });
  compute_.wait(copies_.record());
  compute_.run([&](Stream) { ran = true; });
  EXPECT_THROW(compute_.synchronize(), DeviceError);
  EXPECT_FALSE(ran);
  EXPECT_THROW(copies_.synchronize(), DeviceError);
  EXPECT_NO_THROW(compute_.synchronize());
}

TEST_F(QueueTest, SleepingUntilAPointIsNotCountedAndLeavesErrors) {
  const auto& waits = context_->counters().host_waits;
  compute_.synchronize();
  const int64_t before = waits;
  Event().sleep_until_reached();  // at once
  Gate gate;
  gate.hold(compute_);
  compute_.run([](Stream) { throw DeviceError("burnt"); });
  const Event behind = compute_.record();
  std::atomic<bool> begun{false};
  bool passed = false;
  std::thread sleeper([&] {
    begun = true;
    behind.sleep_until_reached();
    passed = behind.reached();
  });
  while (!begun) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // one that does not sleep comes back before the point
  gate.open();
  sleeper.join();
  EXPECT_TRUE(passed);
  EXPECT_EQ(waits, before);
  EXPECT_THROW(behind.wait(), DeviceError);
  EXPECT_THROW(compute_.synchronize(), DeviceError);
}

TEST_F(QueueTest, OnlyRealWaitsOfTheHostAreCounted) {
  const auto& waits = context_->counters().host_waits;
  compute_.synchronize();
  int64_t before = waits;
  Event().wait();  // already reached
  const Event event = compute_.record();
  while (!event.reached()) std::this_thread::yield();
  event.wait();
  EXPECT_EQ(waits, before);
  Gate gate;
  gate.hold(compute_);
  const Event behind = compute_.record();
  copies_.wait(behind);  // a queue waits, not the host
  copies_.run([](Stream) {});
  std::thread opener([&] {
    while (waits == before) std::this_thread::yield();  // the host is in wait(), or about to be
    gate.open();
  });
  behind.wait();
  opener.join();
  EXPECT_EQ(waits, before + 1);
}

TEST_F(QueueTest, OnlyWorkForTheComputeQueueIsCounted) {
  const int64_t before = context_->counters().submissions;
  compute_.run([](Stream) {});
  copies_.run([](Stream) {});
  compute_.record().wait();
  EXPECT_EQ(context_->counters().submissions, before + 1);
}

TEST_F(QueueTest, PendingWorkIsDoneBeforeTheContextGoes) {
  int value = 0, copied = 0;
  {
    const auto context = Context::create(Context::Options{Device::cpu(), 1});
    for (int i = 0; i < 1000; ++i) context->compute().run([&](Stream) { ++value; });
    context->copies().wait(context->compute().record());
    context->copies().run([&](Stream) { copied = value; });
  }
  EXPECT_EQ(value, 1000);
  EXPECT_EQ(copied, 1000);
}

TEST_F(QueueTest, AnUnreadErrorDoesNotKeepTheContextFromGoing) {
  const auto context = Context::create(Context::Options{Device::cpu(), 1});
  context->compute().run([](Stream) { throw DeviceError("nobody asks"); });
}

TEST_F(QueueTest, ManyThreadsMaySubmit) {
  int value = 0;  // touched by the queue's thread alone
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 250; ++i) compute_.run([&](Stream) { ++value; });
      compute_.record().wait();
    });
  for (std::thread& t : threads) t.join();
  compute_.synchronize();
  EXPECT_EQ(value, 1000);
}

TEST(ContextTest, CountsMemory) {
  const auto context = Context::create(Device::cpu());
  const Counters& counters = context->counters();
  {
    const Buffer a(*context, 1000);
    Buffer b(*context, 24, Buffer::Kind::pinned);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data()) % 256, 0U);
    EXPECT_EQ(counters.device_bytes, 1000);
    EXPECT_EQ(counters.pinned_bytes, 24);
    const Buffer moved = std::move(b);
    EXPECT_EQ(moved.bytes(), 24);
    EXPECT_EQ(counters.pinned_bytes, 24);
    EXPECT_EQ(Buffer(*context, 0).data(), nullptr);
  }
  EXPECT_EQ(counters.device_bytes, 0);
  EXPECT_EQ(counters.pinned_bytes, 0);
  EXPECT_EQ(counters.device_bytes_peak, 1000);
  EXPECT_EQ(counters.device_allocations, 1);
  EXPECT_EQ(counters.pinned_allocations, 1);
}

TEST(ContextTest, OutOfMemorySaysHowMuchAndTheRemedy) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer's allocator ends the program instead";
#endif
  const auto context = Context::create(Device::cpu());
  try {
    context->allocate(int64_t{1} << 60);
    FAIL() << "expected an error";
  } catch (const OutOfMemoryError& e) {
    const std::string message = e.what();
    EXPECT_TRUE(message.starts_with("out of memory on cpu: asked for 1152921504606846976 bytes, of which ")) << message;
    EXPECT_TRUE(message.ends_with(" are free; try a smaller batch (-b)")) << message;
  }
  EXPECT_EQ(context->counters().device_bytes, 0);
}

TEST(ContextTest, DescribesItselfAndItsThreads) {
  const auto context = Context::create(Context::Options{Device::cpu(), 3});
  EXPECT_EQ(context->threads(), 3);
  EXPECT_NE(context->describe().find("(3 threads)"), std::string::npos);
  EXPECT_EQ(context->device(), Device::cpu());
}

}  // namespace
}  // namespace convolt::test
