// What somebody may have meant.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace convolt {

// The candidate nearest to a mistyped `word` ("resnet2O" -> "resnet20"), the first of several; empty when none is near.
// Distance: the fewest insertions, deletions, substitutions and swaps of neighbours (optimal string alignment; F.
// Damerau, CACM 7(3), 1964), near up to max(2, length of word / 3) and where a letter is left that agrees.
std::string nearest_name(std::string_view word, std::span<const std::string> candidates);

}  // namespace convolt
