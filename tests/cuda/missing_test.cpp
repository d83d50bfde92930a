// What a CUDA build says where the driver or a library is missing.
#include <gmock/gmock.h>

#include "convolt/context.h"
#include "data/device_decoder.h"
#include "device/dynamic_library.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(DynamicLibraryTest, TakesTheFirstNameThatLoads) {
  const DynamicLibrary library("the C mathematics library", {"libno_such_name.so.1", "libm.so.6"});
  EXPECT_EQ(library.symbol<double(double)>("floor")(2.5), 2.0);
}

TEST(DynamicLibraryTest, NamesWhatIsMissingAndTheRemedy) {
  EXPECT_THAT([] { DynamicLibrary("cuFoo 9", {"libcufoo.so.9"}); },
              ThrowsMessage<DeviceError>(AllOf(HasSubstr("cuFoo 9 was not found"), HasSubstr("libcufoo.so.9"),
                                               HasSubstr("CONVOLT_CUDA_LIBRARIES"), HasSubstr("--device cpu"))));
  const DynamicLibrary library("the C mathematics library", {"libm.so.6"});
  EXPECT_THAT([&] { library.symbol<void()>("convolt_has_no_such_function"); },
              ThrowsMessage<DeviceError>(HasSubstr("convolt_has_no_such_function")));
}

TEST(MissingDeviceTest, AContextSaysWhyThereIsNone) {
  if (cuda_device_count() > 0) {
    EXPECT_EQ(cuda_unavailable_reason(), "");
    EXPECT_THAT([] { Context::create(Device::cuda(cuda_device_count())); },
                ThrowsMessage<DeviceError>(HasSubstr("there is no device cuda:")));
    return;
  }
  const std::string reason = cuda_unavailable_reason();
  EXPECT_THAT(reason, HasSubstr("--device cpu"));
  EXPECT_THAT([] { Context::create(Device::cuda()); }, ThrowsMessage<DeviceError>(reason));
}

// Without a device the library starts nothing, but it must be there and have all functions.
TEST(MissingDeviceTest, NvjpegHasAllThatIsUsedOfIt) {
  if (cuda_device_count() > 0) GTEST_SKIP() << "test_gpu uses it";
  const auto context = Context::create(Device::cpu());
  EXPECT_THAT([&] { make_nvjpeg_decoder(*context); },
              ThrowsMessage<DeviceError>(HasSubstr("selecting the CUDA device failed")));
}

}  // namespace
}  // namespace convolt::test
