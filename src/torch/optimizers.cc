// Gradient clipping and optimizer kernels, operation for operation as torch 2.11 runs them from Python.
#include <cmath>
#include <unordered_map>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "host/src/torch/bridge.h"

namespace host {
namespace torch_bridge {
namespace {

std::vector<at::Tensor> gradients_of(rust::Slice<const std::size_t> parameters) {
  std::vector<at::Tensor> gradients;
  gradients.reserve(parameters.size());
  for (auto address : parameters) {
    const auto& gradient = tensor_at(address).grad();
    if (gradient.defined()) gradients.push_back(gradient);
  }
  return gradients;
}

// torch.optim.adam._single_tensor_adam with decoupled weight decay.
void adamw_single(at::Tensor& parameter, const at::Tensor& gradient, at::Tensor& exp_avg, at::Tensor& exp_avg_sq,
                  at::Tensor& step, double learning_rate, double beta1, double beta2, double weight_decay,
                  double epsilon) {
  step.add_(1);
  if (weight_decay != 0) scale(parameter, 1 - learning_rate * weight_decay);
  exp_avg.lerp_(gradient, 1 - beta1);
  scale(exp_avg_sq, beta2).addcmul_(gradient, gradient, 1 - beta2);
  const double count = step.item<double>();
  const double bias_correction1 = 1 - std::pow(beta1, count);
  const double bias_correction2 = 1 - std::pow(beta2, count);
  const double step_size = learning_rate / bias_correction1;
  auto denominator = (exp_avg_sq.sqrt() / std::sqrt(bias_correction2)).add_(epsilon);
  parameter.addcdiv_(exp_avg, denominator, -step_size);
}

}  // namespace

void set_gradient(std::size_t parameter, std::size_t gradient) {
  tensor_at(parameter).mutable_grad() = tensor_at(gradient);
}

void clear_gradients(rust::Slice<const std::size_t> parameters) {
  for (auto address : parameters) tensor_at(address).mutable_grad().reset();
}

// torch.nn.utils.clip_grad_norm_: one norm per gradient, then the norm of the norms; the factor is always multiplied.
double clip_gradients(rust::Slice<const std::size_t> parameters, double max_norm) {
  at::NoGradGuard no_grad;
  auto gradients = gradients_of(parameters);
  if (gradients.empty()) return 0;
  std::vector<at::Tensor> norms;
  if (gradients.front().is_cpu()) {
    norms.reserve(gradients.size());
    for (const auto& gradient : gradients) norms.push_back(at::linalg_vector_norm(gradient));
  } else {
    norms = at::_foreach_norm(gradients);
  }
  const auto total = at::linalg_vector_norm(at::stack(norms));
  // Python divides a number by a tensor as reciprocal times number; a division would round differently.
  const auto factor = at::clamp_max((total + 1e-6).reciprocal() * max_norm, 1.0);
  if (gradients.front().is_cpu()) {
    for (auto& gradient : gradients) gradient.mul_(factor);
  } else {
    at::_foreach_mul_(gradients, factor);
  }
  return total.item<double>();
}

bool gradients_are_finite(rust::Slice<const std::size_t> parameters) {
  at::NoGradGuard no_grad;
  for (const auto& gradient : gradients_of(parameters)) {
    // A sum is finite only if every element is; an overflowing sum of finite elements is settled by the exact test.
    if (!std::isfinite(gradient.sum().item<double>()) && !at::isfinite(gradient).all().item<bool>()) return false;
  }
  return true;
}

void adamw_step(rust::Slice<const std::size_t> parameters, rust::Slice<const std::size_t> exp_avgs,
                rust::Slice<const std::size_t> exp_avg_sqs, rust::Slice<const std::size_t> steps,
                double learning_rate, double beta1, double beta2, double weight_decay, double epsilon, bool fused) {
  at::NoGradGuard no_grad;
  if (!fused) {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      auto& parameter = tensor_at(parameters[i]);
      if (!parameter.grad().defined()) continue;
      adamw_single(parameter, parameter.grad(), tensor_at(exp_avgs[i]), tensor_at(exp_avg_sqs[i]),
                   tensor_at(steps[i]), learning_rate, beta1, beta2, weight_decay, epsilon);
    }
    return;
  }
  // The fused kernel takes one device and dtype at a time.
  struct Lists {
    std::vector<at::Tensor> parameters, gradients, exp_avgs, exp_avg_sqs, steps;
  };
  std::unordered_map<std::string, Lists> groups;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    auto& parameter = tensor_at(parameters[i]);
    if (!parameter.grad().defined()) continue;
    auto& lists = groups[parameter.device().str() + at::toString(parameter.scalar_type())];
    lists.parameters.push_back(parameter);
    lists.gradients.push_back(parameter.grad());
    lists.exp_avgs.push_back(tensor_at(exp_avgs[i]));
    lists.exp_avg_sqs.push_back(tensor_at(exp_avg_sqs[i]));
    lists.steps.push_back(tensor_at(steps[i]));
  }
  for (auto& entry : groups) {
    auto& lists = entry.second;
    at::_foreach_add_(lists.steps, 1);
    at::_fused_adamw_(lists.parameters, lists.gradients, lists.exp_avgs, lists.exp_avg_sqs, {}, lists.steps,
                      learning_rate, beta1, beta2, weight_decay, epsilon, false, false, std::nullopt, std::nullopt);
  }
}

// torch.optim.sgd._single_tensor_sgd without momentum.
void sgd_step(rust::Slice<const std::size_t> parameters, double learning_rate, double weight_decay) {
  at::NoGradGuard no_grad;
  for (auto address : parameters) {
    auto& parameter = tensor_at(address);
    if (!parameter.grad().defined()) continue;
    auto gradient = parameter.grad();
    if (weight_decay != 0) gradient = gradient.add(parameter, weight_decay);
    parameter.add_(gradient, -learning_rate);
  }
}

void add_scaled(std::size_t target, std::size_t other, double factor) {
  at::NoGradGuard no_grad;
  tensor_at(target).add_(tensor_at(other), factor);
}

}  // namespace torch_bridge
}  // namespace host
