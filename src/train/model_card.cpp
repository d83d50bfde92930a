// What a network needs to be used again, and whether it fits one.
#include <fmt/format.h>

#include <algorithm>

#include "convolt/checkpoint.h"
#include "convolt/network_file.h"

namespace convolt {

void fit_card(ModelCard& card, const Graph& graph) {
  if (card.classes == 0) card.classes = graph.classes();
  const int64_t channels = graph.layers()[0].shape[2];
  if (card.classes != graph.classes())
    throw UsageError(
        fmt::format("the card says {} classes, the network has {} outputs", card.classes, graph.classes()));
  if (card.preprocessing.channels != channels)
    throw UsageError(fmt::format("the preprocessing makes pictures of {} channels, the network reads {}",
                                 card.preprocessing.channels, channels));
  if (static_cast<int64_t>(card.class_names.size()) > card.classes)
    throw UsageError(fmt::format("the card has {} names for {} classes", card.class_names.size(), card.classes));
}

ModelCard card_of(const Graph& graph, const AugmentOptions& preprocessing, std::vector<std::string> class_names) {
  ModelCard card;
  card.model = "network";
  card.class_names = std::move(class_names);
  card.preprocessing = preprocessing;
  card.channels = preprocessing.channels;
  card.height = preprocessing.height;
  card.width = preprocessing.width;
  fit_card(card, graph);
  graph.shapes_for(card.height, card.width);  // throws where it takes no such pictures
  ModelInfo info;
  info.name = card.model;
  info.size = static_cast<int>(graph.layers()[0].shape[0]);
  info.resize = std::max(preprocessing.resize, 1);
  info.mean = preprocessing.mean;
  info.std = preprocessing.std;
  info.interpolation = preprocessing.interpolation;
  info.classes = card.classes;
  info.channels = card.channels;
  card.network = write_network(graph, info);
  return card;
}

ModelInfo model_of(const ModelCard& card) {
  return card.network.empty() ? find_model(card.model) : parse_network(card.model, card.network);
}

}  // namespace convolt
