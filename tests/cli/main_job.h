// A small set of drawn pictures, and how the program trains on it.
#pragma once

#include "cli/program.h"

namespace convolt::test {

class MainJob : public testing::Test {
protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    ASSERT_EQ(convolt("synth '" + folder_->path("shapes") +
                      "' --classes 3 --train-per-class 16 --val-per-class 5 --min-side 32 --max-side 48")
                  .code,
              0);
  }
  static void TearDownTestSuite() { delete folder_; }
  static std::string at(const std::string& name) { return folder_->path(name); }
  static std::string train(const std::string& run) {
    return "train --data-path '" + at("shapes") + "' --model resnet20 -b 8 --seed 5 --rotate 20 --output-dir '" +
           at(run) + "' ";
  }
  inline static TempFolder* folder_ = nullptr;
};

}  // namespace convolt::test
