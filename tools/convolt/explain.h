// What `convolt augment --explain` says.
#pragma once

#include <cstdint>
#include <string>

#include "convolt/dataset.h"
#include "convolt/loader.h"

namespace convolt::cli {

// The class of a sample, printable.
std::string class_of(const Dataset& data, int64_t sample);

// Prints what a training with these options does to a sample in an epoch, counted from 1.
void explain_sample(const Dataset& data, const LoaderOptions& training, int64_t sample, int epoch, bool as_json);

}  // namespace convolt::cli
