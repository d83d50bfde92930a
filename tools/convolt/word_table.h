// Flags whose values are words that stand for something.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "flag_set.h"

namespace convolt::cli {

template <class T>
using WordTable = std::vector<std::pair<std::string, T>>;

template <class T>
Rule name_in(const WordTable<T>& names) {
  std::vector<std::string> words;
  for (const auto& [name, value] : names) words.push_back(name);
  return one_of(words);
}
// Of a word that is in the table.
template <class T>
T value_of(const std::string& word, const WordTable<T>& names) {
  return std::find_if(names.begin(), names.end(), [&](const auto& n) { return n.first == word; })->second;
}
template <class T>
std::string name_of(T value, const WordTable<T>& names) {
  return std::find_if(names.begin(), names.end(), [&](const auto& n) { return n.second == value; })->first;
}

}  // namespace convolt::cli
