// A loss of your own: a function on the host that writes the loss of each row and its derivative by the logits.
#include <convolt/convolt.h>

#include <cstdio>

using namespace convolt;

constexpr int kBatch = 64, kSide = 8, kClasses = 4;

// The multi-class hinge of K. Crammer and Y. Singer (JMLR 2, 2001): the label's logit is to lie above the largest other
// one by at least 1.
void hinge(const LossBatch& b) {
  for (int n = 0; n < b.rows; ++n) {
    const float* x = b.logits + n * b.classes;
    const int label = b.labels[n];
    int rival = label == 0 ? 1 : 0;
    for (int k = 0; k < b.classes; ++k)
      if (k != label && x[k] > x[rival]) rival = k;
    const float loss = 1 + x[rival] - x[label];
    if (loss <= 0) continue;  // what is not written is 0
    b.losses[n] = loss;
    if (b.gradient == nullptr) continue;
    b.gradient[n * b.classes + rival] = 1;
    b.gradient[n * b.classes + label] = -1;
  }
}

// Pictures with one bright quarter, which the label names.
void draw(uint32_t& random, std::vector<float>& images, std::vector<int32_t>& labels) {
  for (int n = 0; n < kBatch; ++n) {
    random = random * 1664525U + 1013904223U;
    labels[static_cast<size_t>(n)] = static_cast<int32_t>(random >> 30);
    for (int p = 0; p < kSide * kSide; ++p) {
      random = random * 1664525U + 1013904223U;
      const int quarter = p / kSide / (kSide / 2) * 2 + p % kSide / (kSide / 2);
      const float noise = static_cast<float>(random >> 24) / 128 - 1;
      images[static_cast<size_t>(n * kSide * kSide + p)] =
          noise + (quarter == labels[static_cast<size_t>(n)] ? 0.5F : 0.F);
    }
  }
}

int main() {
  const auto context = Context::create(Device::cpu());
  Graph g;
  Value x = g.input("image", {kSide, kSide, 1});
  x = relu(batch_norm(conv2d(x, 8, {.padding = 1})));
  g.output(linear(flatten(x), kClasses));
  Params params(*context, g, /*seed=*/1);
  Optimizer sgd(params, {.momentum = 0.9F, .weight_decay = 1e-3F});
  Plan plan(g, params, {.batch = kBatch, .training = true, .loss = {.custom = hinge}, .optimizer = &sgd});

  std::vector<float> images(kBatch * kSide * kSide);
  std::vector<int32_t> labels(kBatch);
  uint32_t random = 1;
  double accuracy = 0;
  for (int step = 0; step < 200; ++step) {
    if (step % 50 == 0) plan.set_meters({});
    draw(random, images, labels);
    plan.run(images.data(), labels.data(), kBatch, step, /*learning_rate=*/0.01F);
    if (step % 50 != 49) continue;
    const MeterValues m = plan.meters().values;
    accuracy = m.top1 / m.weight;
    std::printf("steps %3d to %3d: hinge %.3f, %.1f %% right\n", step - 49, step, m.loss / m.weight, 100 * accuracy);
  }
  return accuracy > 0.9 ? 0 : 1;
}
