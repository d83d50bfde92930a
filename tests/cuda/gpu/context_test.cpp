// The contract of include/convolt/context.h, on the device.
#include <gmock/gmock.h>

#include <cstring>

#include "convolt/context.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

class CudaContextTest : public testing::Test {
protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << cuda_unavailable_reason();
    context = Context::create(Device::cuda());
  }
  std::unique_ptr<Context> context;
};

TEST_F(CudaContextTest, ACopyWaitsForAnEventOfTheOtherQueue) {
  constexpr int64_t kBytes = int64_t{64} << 20;
  const Buffer from(*context, kBytes, Buffer::Kind::pinned), back(*context, kBytes, Buffer::Kind::pinned);
  const Buffer device(*context, kBytes);
  std::memset(from.data(), 0x5A, kBytes);
  context->copies().copy(device.data(), from.data(), kBytes);
  context->compute().wait(context->copies().record());
  context->compute().copy(back.data(), device.data(), kBytes);
  context->compute().synchronize();
  EXPECT_EQ(std::memcmp(from.data(), back.data(), kBytes), 0);
}

TEST_F(CudaContextTest, AnEventThatIsReachedIsNoHostWait) {
  const Event event = context->compute().record();
  context->compute().synchronize();
  EXPECT_TRUE(event.reached());
  const int64_t waits = context->counters().host_waits;
  event.wait();
  Event().wait();
  EXPECT_EQ(context->counters().host_waits, waits);
}

TEST_F(CudaContextTest, AnErrorOfQueuedWorkSurfacesOnceAtSynchronisation) {
  context->compute().run([](Stream) { throw DeviceError("the third op failed"); });
  bool ran = false;
  context->compute().run([&](Stream) { ran = true; });
  const Event after = context->compute().record();
  EXPECT_THAT([&] { after.wait(); }, ThrowsMessage<DeviceError>(HasSubstr("third op")));
  EXPECT_THAT([&] { context->compute().synchronize(); }, ThrowsMessage<DeviceError>(HasSubstr("third op")));
  EXPECT_FALSE(ran);
  EXPECT_NO_THROW(context->compute().synchronize());
  EXPECT_EQ(context->counters().submissions, 2);
}

TEST_F(CudaContextTest, TooMuchMemoryIsAnErrorThatSaysWhatIsFree) {
  EXPECT_THAT([&] { context->allocate(int64_t{1} << 50); },
              ThrowsMessage<OutOfMemoryError>(AllOf(HasSubstr("cuda:0"), HasSubstr("are free"))));
  const Buffer still_works(*context, 1000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(still_works.data()) % 256, 0U);
  EXPECT_EQ(context->counters().device_bytes, 1000);
}

}  // namespace
}  // namespace convolt::test
