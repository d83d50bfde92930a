#include "convolt/whitening.h"

#include <gmock/gmock.h>

#include "train/eigen.h"
#include "train/trial.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

// [2 1; 1 2]: 1 along (1, -1), 3 along (1, 1).
TEST(Eigen, ByHand) {
  const Eigen e = eigen_of({{2, 1}, {1, 2}});
  EXPECT_NEAR(e.values[0], 1, 1e-15);
  EXPECT_NEAR(e.values[1], 3, 1e-15);
  EXPECT_NEAR(e.vectors[0][0] * e.vectors[0][1], -0.5, 1e-15);
  EXPECT_NEAR(e.vectors[1][0] * e.vectors[1][1], 0.5, 1e-15);
}

TEST(Eigen, VectorsAreOrthonormalAndKeepTheirDirection) {
  constexpr size_t n = 12;
  const std::vector<double> random = random_values(n * n, 5);
  std::vector<std::vector<double>> a(n, std::vector<double>(n));
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j) a[i][j] = random[i * n + j] + random[j * n + i];
  const Eigen e = eigen_of(a);
  EXPECT_TRUE(std::is_sorted(e.values.begin(), e.values.end()));
  for (size_t k = 0; k < n; ++k)
    for (size_t i = 0; i < n; ++i) {
      double image = 0, product = 0;
      for (size_t j = 0; j < n; ++j) {
        image += a[i][j] * e.vectors[k][j];
        product += e.vectors[i][j] * e.vectors[k][j];
      }
      EXPECT_NEAR(image, e.values[k] * e.vectors[k][i], 1e-12);
      EXPECT_NEAR(product, i == k ? 1 : 0, 1e-12);
    }
}

struct Network {
  Graph graph;
  explicit Network(int64_t filters = 8) {
    const Value x = graph.input("image", {MadeSet::kSide, MadeSet::kSide, 1});
    graph.output(linear(flatten(conv2d(x, filters, {.name = "white", .kernel = 2, .bias = true})), 3));
  }
  Params params() const { return Params(context_of(Device::cpu()), graph, 1); }
};

// Of the first four filters over all patches of all pictures: their outputs' mean products.
std::vector<double> products_of(const Params& params, const MadeSet& data) {
  const std::vector<float> w = params.values(params.find("white.weight"));
  std::vector<double> sums(16);
  double patches = 0;
  for (int64_t i = 0; i < data.size(); ++i) {
    const RawSample picture = data.read(i);
    const auto value = [&](size_t y, size_t x) {
      return (picture.bytes[y * MadeSet::kSide + x] / 255.0 - static_cast<double>(0.3F)) / 0.25;
    };
    for (size_t y = 0; y + 1 < MadeSet::kSide; ++y)
      for (size_t x = 0; x + 1 < MadeSet::kSide; ++x, ++patches) {
        double out[4];
        for (size_t f = 0; f < 4; ++f)
          out[f] = w[f * 4] * value(y, x) + w[f * 4 + 1] * value(y, x + 1) + w[f * 4 + 2] * value(y + 1, x) +
                   w[f * 4 + 3] * value(y + 1, x + 1);
        for (size_t p = 0; p < 16; ++p) sums[p] += out[p / 4] * out[p % 4];
      }
  }
  for (double& s : sums) s /= patches;
  return sums;
}

// Variances of l / (l + 5e-4), the least l being about 0.1, and no correlation; then the same filters negated.
TEST(Whitening, TheOutputsAreWhite) {
  const Network network;
  Params params = network.params();
  const std::vector<float> bias = params.values(params.find("white.bias"));
  const MadeSet data(30);
  whiten(network.graph, params, data, made_pictures(), 1000);
  const std::vector<double> products = products_of(params, data);
  for (size_t p = 0; p < 16; ++p) {
    if (p % 5 == 0) {
      EXPECT_GT(products[p], 0.99) << p;
      EXPECT_LT(products[p], 1) << p;
    } else {
      EXPECT_NEAR(products[p], 0, 1e-5) << p;
    }
  }
  const std::vector<float> w = params.values(params.find("white.weight"));
  for (size_t i = 0; i < 16; ++i) EXPECT_EQ(w[16 + i], -w[i]);
  EXPECT_EQ(params.values(params.find("white.bias")), bias);
}

TEST(Whitening, PassesOverWhatCannotBeRead) {
  const Network network;
  Params whole = network.params(), part = network.params();
  whiten(network.graph, whole, MadeSet(3), made_pictures(), 2);  // pictures 0 and 1
  whiten(network.graph, part, MadeSet(4, {0, 3}), made_pictures(), 4);
  EXPECT_NE(whole.values(0), part.values(0));
  Params same = network.params();
  whiten(network.graph, same, MadeSet(3, {2}), made_pictures(), 3);
  EXPECT_EQ(same.values(0), whole.values(0));
  EXPECT_THROW(whiten(network.graph, part, MadeSet(2, {0, 1}), made_pictures(), 2), DataError);
}

TEST(Whitening, NamesTheLayerThatDoesNotFit) {
  const Network network(9);
  Params params = network.params();
  try {
    whiten(network.graph, params, MadeSet(3), made_pictures(), 3);
    FAIL();
  } catch (const UsageError& e) {
    EXPECT_THAT(e.what(), HasSubstr("layer 'white'"));
    EXPECT_THAT(e.what(), HasSubstr("expected 8, found 9"));
  }
}

}  // namespace
}  // namespace convolt::test
