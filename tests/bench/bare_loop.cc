// The libtorch calls of one training step on the two-scalar regression module, and nothing else: what `host`'s loop is
// compared with. Prints microseconds of processor time per step.
//
//     bare_loop regression.pt STEPS
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include <torch/script.h>

namespace {

constexpr int kBatch = 8;

// torch.optim.AdamW on one tensor, as `host` runs it.
struct Moments {
  at::Tensor exp_avg, exp_avg_sq, step;
};

void update(at::Tensor& parameter, Moments& moments, double learning_rate) {
  moments.step.add_(1);
  moments.exp_avg.lerp_(parameter.grad(), 0.1);
  moments.exp_avg_sq.mul_(0.999).addcmul_(parameter.grad(), parameter.grad(), 0.001);
  const double count = moments.step.item<double>();
  const double correction1 = 1 - std::pow(0.9, count), correction2 = 1 - std::pow(0.999, count);
  auto denominator = (moments.exp_avg_sq.sqrt() / std::sqrt(correction2)).add_(1e-8);
  parameter.addcdiv_(moments.exp_avg, denominator, -learning_rate / correction1);
}

// Clips to norm 1 as torch.nn.utils.clip_grad_norm_ does.
double clip(std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> norms;
  for (const auto& parameter : parameters) norms.push_back(at::linalg_vector_norm(parameter.grad()));
  const auto total = at::linalg_vector_norm(at::stack(norms));
  const auto factor = at::clamp_max(1.0 / (total + 1e-6), 1.0);
  for (auto& parameter : parameters) parameter.mutable_grad().mul_(factor);
  return total.item<double>();
}

at::Tensor column(const std::vector<float>& values, std::size_t first) {
  return at::from_blob(const_cast<float*>(values.data()) + first, {kBatch}, at::kFloat).clone();
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) {
    std::fprintf(stderr, "usage: bare_loop regression.pt STEPS\n");
    return 2;
  }
  const long steps = std::atol(arguments[2]);
  auto module = torch::jit::load(arguments[1]);
  module.train();
  std::vector<at::Tensor> parameters;
  std::vector<Moments> moments;
  for (const auto& parameter : module.parameters()) {
    parameters.push_back(parameter);
    moments.push_back({at::zeros({}), at::zeros({}), at::zeros({})});
  }
  std::vector<float> x, y;
  for (int i = 0; i < 64; ++i) {
    x.push_back(((37 * i) % 64) / 16.0f - 2);
    y.push_back(2 * x.back() + 3 + (i % 2 == 0 ? 0.1f : -0.1f));
  }
  double total_loss = 0;
  const std::clock_t begin = std::clock();
  const auto begin_wall = std::chrono::steady_clock::now();
  for (long step = 0; step < steps; ++step) {
    const std::size_t first = (step * kBatch) % x.size();
    torch::jit::Kwargs batch{{"input_x", column(x, first)}, {"labels", column(y, first)}};
    const auto loss = module.forward({}, batch).toTupleRef().elements()[0].toTensor();
    loss.backward();
    total_loss += loss.item<double>();
    at::NoGradGuard no_grad;
    clip(parameters);
    const double learning_rate = 0.1 * (steps - step) / steps;
    for (std::size_t i = 0; i < parameters.size(); ++i) update(parameters[i], moments[i], learning_rate);
    for (auto& parameter : parameters) parameter.mutable_grad().reset();
  }
  const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - begin_wall;
  std::printf("%.3f %.3f\n", 1e6 * seconds / steps, 1e6 * wall.count() / steps);
  return std::isfinite(total_loss) ? 0 : 1;
}
