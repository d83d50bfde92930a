// The update formulas that Convolt knows; optimizer.h says what each computes.
#pragma once

#include <cstdint>
#include <string_view>

namespace convolt {

// By the names of torch.optim and of the papers.
enum class OptimizerKind : uint8_t { sgd, adam, adamw, rmsprop, lars, lion };

// "sgd", "adam", "adamw", "rmsprop", "lars", "lion".
std::string_view name_of(OptimizerKind kind);
// Throws UsageError that lists them.
OptimizerKind optimizer_kind_from_name(std::string_view name);

}  // namespace convolt
