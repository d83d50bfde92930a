// Networks as data: a JSON file describes a network without compiling anything. Format: docs/network-format.md.
#pragma once

#include <string>

#include "convolt/models.h"

namespace convolt {

// The graph in that format, with the preprocessing and the summary of `info`. The layer that makes the logits gets as
// many outputs as classes are asked for when the text is read. Throws UsageError for a layer that has no description.
std::string write_network(const Graph& graph, const ModelInfo& info);

// A model from such a text. `name` is the model's, and what errors call it. Throws FormatError that names the layer and
// what was expected and found.
ModelInfo parse_network(const std::string& name, const std::string& text);

// The same from a file of at most 4 MiB. Throws DataError where it cannot be read.
ModelInfo read_network(const std::string& path);

}  // namespace convolt
