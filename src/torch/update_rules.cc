// Update rules that share one entry, each in the order of operations of its
// reference, over lists: on a GPU one foreach kernel serves all tensors of a type.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include "host/src/torch/bridge.h"
#include "host/src/torch/bridge.rs.h"

namespace host {
namespace torch_bridge {
namespace {

using Tensors = std::vector<at::Tensor>;

// Elements that share a scale (bitsandbytes' block-wise optimizers).
constexpr std::int64_t kBlock = 256;

// Parameters of one device and type with what a step needs of each.
struct Batch {
  Tensors parameters, gradients;
  std::vector<Tensors> states;
  std::vector<double> steps;
};

// On a CPU every parameter by itself: foreach operations loop there anyway, and temporaries stay as small as one
// parameter.
std::vector<Batch> batches(rust::Slice<const std::size_t> parameters, rust::Slice<const std::size_t> states,
                           rust::Slice<const double> steps) {
  std::map<std::string, Batch> groups;
  const std::size_t width = parameters.empty() ? 0 : states.size() / parameters.size();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const auto& parameter = tensor_at(parameters[i]);
    const auto place = parameter.is_cpu() ? std::to_string(i) : parameter.device().str();
    auto& batch = groups[place + at::toString(parameter.scalar_type())];
    batch.states.resize(width);
    batch.parameters.push_back(parameter);
    batch.gradients.push_back(parameter.grad());
    for (std::size_t j = 0; j < width; ++j) batch.states[j].push_back(tensor_at(states[i * width + j]));
    batch.steps.push_back(steps[i]);
  }
  std::vector<Batch> result;
  for (auto& entry : groups) result.push_back(std::move(entry.second));
  return result;
}

// Plain L2 decay: part of the gradient.
Tensors decayed_gradients(const Batch& batch, double weight_decay) {
  if (weight_decay == 0) return batch.gradients;
  return at::_foreach_add(batch.gradients, batch.parameters, weight_decay);
}

// The type sums are held in: half precision becomes float32.
at::Tensor wide(const at::Tensor& tensor) {
  const auto type = tensor.scalar_type();
  return type == at::kHalf || type == at::kBFloat16 ? tensor.to(at::kFloat) : tensor;
}

Tensors wide(const Tensors& tensors) {
  Tensors result;
  for (const auto& tensor : tensors) result.push_back(wide(tensor));
  return result;
}

// Wide copies back into the parameters they were made of; the others were updated in place.
void store(const Tensors& working, Tensors& parameters) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!working[i].is_same(parameters[i])) parameters[i].copy_(working[i]);
  }
}

// Every tensor times a factor; on a CPU as Python's loop over single tensors does it.
void scale_all(Tensors& tensors, double factor) {
  if (!tensors.empty() && !tensors.front().is_cpu()) return at::_foreach_mul_(tensors, at::Scalar(factor));
  for (auto& tensor : tensors) scale(tensor, factor);
}

template <typename Function>
std::vector<at::Scalar> scalars(const std::vector<double>& steps, Function function) {
  std::vector<at::Scalar> result;
  for (double step : steps) result.emplace_back(function(step));
  return result;
}

// torch.optim.AdamW over lists; `adamw_single` of optimizers.cc is the same for a single tensor.
void adamw(Batch& batch, const UpdateSettings& s) {
  auto &exp_avgs = batch.states[0], &exp_avg_sqs = batch.states[1];
  if (s.weight_decay != 0) scale_all(batch.parameters, 1 - s.learning_rate * s.weight_decay);
  at::_foreach_lerp_(exp_avgs, batch.gradients, at::Scalar(1 - s.beta1));
  scale_all(exp_avg_sqs, s.beta2);
  at::_foreach_addcmul_(exp_avg_sqs, batch.gradients, batch.gradients, at::Scalar(1 - s.beta2));
  auto denominators = at::_foreach_sqrt(exp_avg_sqs);
  at::_foreach_div_(denominators,
                    scalars(batch.steps, [&](double step) { return std::sqrt(1 - std::pow(s.beta2, step)); }));
  at::_foreach_add_(denominators, at::Scalar(s.epsilon));
  at::_foreach_addcdiv_(batch.parameters, exp_avgs, denominators, scalars(batch.steps, [&](double step) {
                          return -(s.learning_rate / (1 - std::pow(s.beta1, step)));
                        }));
}

// transformers 4.34 optimization.AdamW: decay comes last, on the new weights.
void adamw_hf(Batch& batch, const UpdateSettings& s) {
  auto &exp_avgs = batch.states[0], &exp_avg_sqs = batch.states[1];
  scale_all(exp_avgs, s.beta1);
  at::_foreach_add_(exp_avgs, batch.gradients, 1.0 - s.beta1);
  scale_all(exp_avg_sqs, s.beta2);
  at::_foreach_addcmul_(exp_avg_sqs, batch.gradients, batch.gradients, at::Scalar(1.0 - s.beta2));
  auto denominators = at::_foreach_sqrt(exp_avg_sqs);
  at::_foreach_add_(denominators, at::Scalar(s.epsilon));
  const auto sizes = scalars(batch.steps, [&](double step) {
    if (!s.correct_bias) return -s.learning_rate;
    return -(s.learning_rate * std::sqrt(1.0 - std::pow(s.beta2, step)) / (1.0 - std::pow(s.beta1, step)));
  });
  at::_foreach_addcdiv_(batch.parameters, exp_avgs, denominators, sizes);
  if (s.weight_decay > 0) {
    at::_foreach_add_(batch.parameters, batch.parameters, -s.learning_rate * s.weight_decay);
  }
}

// torchdistx AnyPrecisionAdamW. Its corrections are float32 tensors, which decides their last digits. A third state is
// the compensation of Kahan's summation.
void anyprecision(Batch& batch, const UpdateSettings& s) {
  for (std::size_t i = 0; i < batch.parameters.size(); ++i) {
    auto& parameter = batch.parameters[i];
    const auto& gradient = batch.gradients[i];
    auto &exp_avg = batch.states[0][i], &exp_avg_sq = batch.states[1][i];
    const auto step = at::scalar_tensor(batch.steps[i], at::kFloat);
    if (s.weight_decay != 0) scale(parameter, 1 - s.learning_rate * s.weight_decay);
    scale(exp_avg, s.beta1).add_(gradient, 1 - s.beta1);
    scale(exp_avg_sq, s.beta2).addcmul_(gradient, gradient, 1 - s.beta2);
    const auto correction1 = at::rsub(at::pow(at::Scalar(s.beta1), step), 1);
    const auto step_size = (correction1.reciprocal() * s.learning_rate).item<double>();
    const auto correction2 = at::rsub(at::pow(at::Scalar(s.beta2), step), 1).pow(0.5);
    const auto denominator = (exp_avg_sq.sqrt() / correction2).add_(s.epsilon);
    if (batch.states.size() == 2) {
      parameter.addcdiv_(exp_avg, denominator, -step_size);
      continue;
    }
    auto& compensation = batch.states[2][i];
    compensation.addcdiv_(exp_avg, denominator, -step_size);
    auto before = parameter.clone();
    parameter.add_(compensation);
    compensation.add_(before.sub_(parameter));
  }
}

// torch.optim.Adagrad without decay of the rate.
void adagrad(Batch& batch, const UpdateSettings& s) {
  const auto gradients = decayed_gradients(batch, s.weight_decay);
  at::_foreach_addcmul_(batch.states[0], gradients, gradients, at::Scalar(1));
  auto denominators = at::_foreach_sqrt(batch.states[0]);
  at::_foreach_add_(denominators, at::Scalar(s.epsilon));
  at::_foreach_addcdiv_(batch.parameters, gradients, denominators, at::Scalar(-s.learning_rate));
}

// torch.optim.RMSprop, not centred, without momentum; beta2 is its alpha.
void rmsprop(Batch& batch, const UpdateSettings& s) {
  const auto gradients = decayed_gradients(batch, s.weight_decay);
  scale_all(batch.states[0], s.beta2);
  at::_foreach_addcmul_(batch.states[0], gradients, gradients, at::Scalar(1 - s.beta2));
  auto denominators = at::_foreach_sqrt(batch.states[0]);
  at::_foreach_add_(denominators, at::Scalar(s.epsilon));
  at::_foreach_addcdiv_(batch.parameters, gradients, denominators, at::Scalar(-s.learning_rate));
}

// bitsandbytes' 32-bit AdamW: epsilon is added before the second moment is corrected.
void adamw_32bit(Batch& batch, const UpdateSettings& s) {
  const auto gradients = wide(batch.gradients);
  auto parameters = wide(batch.parameters);
  auto &state1 = batch.states[0], &state2 = batch.states[1];
  scale_all(state1, s.beta1);
  at::_foreach_add_(state1, gradients, 1.0 - s.beta1);
  scale_all(state2, s.beta2);
  at::_foreach_addcmul_(state2, gradients, gradients, at::Scalar(1.0 - s.beta2));
  if (s.weight_decay > 0) scale_all(parameters, 1.0 - s.learning_rate * s.weight_decay);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const double correction1 = 1.0 - std::pow(s.beta1, batch.steps[i]);
    const double correction2 = std::sqrt(1.0 - std::pow(s.beta2, batch.steps[i]));
    const auto update = state1[i] / state2[i].sqrt().add_(s.epsilon * correction2);
    parameters[i].add_(update, -s.learning_rate * correction2 / correction1);
  }
  store(parameters, batch.parameters);
}

// bitsandbytes' 32-bit Lion.
void lion_32bit(Batch& batch, const UpdateSettings& s) {
  const auto gradients = wide(batch.gradients);
  auto parameters = wide(batch.parameters);
  if (s.weight_decay > 0) scale_all(parameters, 1.0 - s.learning_rate * s.weight_decay);
  auto updates = at::_foreach_mul(batch.states[0], at::Scalar(s.beta1));
  at::_foreach_add_(updates, gradients, 1.0 - s.beta1);
  at::_foreach_sign_(updates);
  at::_foreach_add_(parameters, updates, -s.learning_rate);
  scale_all(batch.states[0], s.beta2);
  at::_foreach_add_(batch.states[0], gradients, 1.0 - s.beta2);
  store(parameters, batch.parameters);
}

// The upper half of a float32: sign, exponent and seven bits of the fraction. `table` has a code for each.
std::size_t table_place(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits >> 16;
}

at::Tensor middles(const at::Tensor& map) { return (map.narrow(0, 0, 255) + map.narrow(0, 1, 255)) / 2; }

// A state of codes: each is a place in `map`, which ascends, times the scale of its block.
struct Quantised {
  at::Tensor codes, absmax, map, table;

  at::Tensor values() const {
    if (!codes.is_cpu()) {
      const auto scales = absmax.repeat_interleave(kBlock).narrow(0, 0, codes.numel());
      return map.index_select(0, codes.reshape({-1}).to(at::kInt)).mul_(scales).reshape(codes.sizes());
    }
    auto result = at::empty(codes.sizes(), at::kFloat);
    auto* out = result.mutable_data_ptr<float>();
    const auto* code = codes.const_data_ptr<std::uint8_t>();
    const auto *scale = absmax.const_data_ptr<float>(), *value = map.const_data_ptr<float>();
    for_blocks(codes.numel(), [=](std::int64_t block, std::int64_t first, std::int64_t end) {
      for (auto i = first; i < end; ++i) out[i] = value[code[i]] * scale[block];
    });
    return result;
  }

  // The nearest value of the map, the lower of two. This is the rule of bitsandbytes' GPU kernels and of its portable
  // implementation. (Its compiled CPU quantiser rounds to steps of 3e-5 of the scale before it looks.)
  void assign(const at::Tensor& values) {
    if (values.is_cpu()) return assign_on_cpu(values.contiguous());
    const auto count = values.numel();
    const auto padding = absmax.numel() * kBlock - count;
    const auto rows = at::constant_pad_nd(values.reshape({-1}), {0, padding}).reshape({-1, kBlock});
    absmax.copy_(rows.abs().amax(1));
    auto scaled = rows * absmax.clamp_min(kLeastScale).reciprocal().unsqueeze(1);
    const auto places = at::bucketize(scaled.clamp_(-1, 1).reshape({-1}).narrow(0, 0, count), middles(map), true);
    codes.copy_(places.reshape(codes.sizes()));
  }

 private:
  static constexpr float kLeastScale = 1e-38f;

  template <typename Function>
  static void for_blocks(std::int64_t count, Function function) {
    const auto blocks = (count + kBlock - 1) / kBlock;
    at::parallel_for(0, blocks, 128, [&](std::int64_t begin, std::int64_t end) {
      for (auto block = begin; block < end; ++block) {
        function(block, block * kBlock, std::min((block + 1) * kBlock, count));
      }
    });
  }

  // A binary search takes 200 ns an element, most of it mispredicted; the table leaves a step or two.
  void assign_on_cpu(const at::Tensor& values) {
    const auto bounds = middles(map);
    const auto *value = values.const_data_ptr<float>(), *bound = bounds.const_data_ptr<float>();
    const auto* first_code = table.const_data_ptr<std::uint8_t>();
    auto* code = codes.mutable_data_ptr<std::uint8_t>();
    auto* scale = absmax.mutable_data_ptr<float>();
    for_blocks(values.numel(), [=](std::int64_t block, std::int64_t first, std::int64_t end) {
      float largest = 0;
      for (auto i = first; i < end; ++i) {
        const auto size = std::fabs(value[i]);
        // Not a number stays: it must not vanish in the codes.
        if (size > largest || std::isnan(size)) largest = size;
      }
      scale[block] = largest;
      const auto factor = 1 / (largest < kLeastScale ? kLeastScale : largest);
      for (auto i = first; i < end; ++i) {
        const auto scaled = std::min(std::max(value[i] * factor, -1.0f), 1.0f);
        std::size_t place = first_code[table_place(scaled)];
        while (place < 255 && bound[place] < scaled) ++place;
        code[i] = static_cast<std::uint8_t>(place);
      }
    });
  }
};

Quantised quantised(const Batch& batch, std::size_t parameter, std::size_t first) {
  const auto& states = batch.states;
  return {states[first][parameter], states[first + 1][parameter], states[first + 2][parameter],
          states[first + 3][parameter]};
}

// bitsandbytes' 8-bit AdamW with block-wise scales.
void adamw_8bit(Batch& batch, const UpdateSettings& s) {
  const auto gradients = wide(batch.gradients);
  auto parameters = wide(batch.parameters);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    auto state1 = quantised(batch, i, 0), state2 = quantised(batch, i, 4);
    const auto gradient = gradients[i].to(at::kFloat);
    auto exp_avg = state1.values(), exp_avg_sq = state2.values();
    exp_avg.mul_(s.beta1).add_(gradient, 1.0 - s.beta1);
    exp_avg_sq.mul_(s.beta2).addcmul_(gradient, gradient, 1.0 - s.beta2);
    const double correction1 = 1.0 - std::pow(s.beta1, batch.steps[i]);
    const double correction2 = std::sqrt(1.0 - std::pow(s.beta2, batch.steps[i]));
    const auto denominator = (exp_avg_sq.sqrt() / correction2).add_(s.epsilon);
    if (s.weight_decay > 0) parameters[i].mul_(1.0 - s.learning_rate * s.weight_decay);
    parameters[i].addcdiv_(exp_avg, denominator, -s.learning_rate / correction1);
    state1.assign(exp_avg);
    state2.assign(exp_avg_sq);
  }
  store(parameters, batch.parameters);
}

// bitsandbytes' 8-bit Lion with block-wise scales.
void lion_8bit(Batch& batch, const UpdateSettings& s) {
  const auto gradients = wide(batch.gradients);
  auto parameters = wide(batch.parameters);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    auto state = quantised(batch, i, 0);
    const auto gradient = gradients[i].to(at::kFloat);
    auto exp_avg = state.values();
    if (s.weight_decay > 0) parameters[i].mul_(1.0 - s.learning_rate * s.weight_decay);
    const auto direction = at::sign(exp_avg.mul(s.beta1) + gradient.mul(1.0 - s.beta1));
    parameters[i].add_(direction, -s.learning_rate);
    exp_avg.mul_(s.beta2).add_(gradient, 1.0 - s.beta2);
    state.assign(exp_avg);
  }
  store(parameters, batch.parameters);
}

// torch.optim._muon: the nearest semi-orthogonal matrix, roughly, by Newton and Schulz's iteration in bfloat16.
at::Tensor orthogonal(const at::Tensor& update, std::uint32_t iterations, double epsilon) {
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
  const bool is_tall = update.size(0) > update.size(1);
  auto matrix = update.to(at::kBFloat16, false, true);
  if (is_tall) matrix = matrix.t();
  matrix.div_(matrix.norm().clamp_min(epsilon));
  for (std::uint32_t i = 0; i < iterations; ++i) {
    const auto gram = at::mm(matrix, matrix.t());
    const auto change = at::addmm(gram, gram, gram, b, c);
    matrix = at::addmm(matrix, change, matrix, a);
  }
  return is_tall ? matrix.t() : matrix;
}

// torch.optim.Muon; beta1 is its momentum.
void muon(Batch& batch, const UpdateSettings& s) {
  for (std::size_t i = 0; i < batch.parameters.size(); ++i) {
    auto& parameter = batch.parameters[i];
    const auto& gradient = batch.gradients[i];
    auto& momentum = batch.states[0][i];
    momentum.lerp_(gradient, 1 - s.beta1);
    const auto update = s.nesterov ? gradient.lerp(momentum, s.beta1) : momentum;
    const auto direction = orthogonal(update, s.newton_schulz_steps, s.epsilon);
    const double rows = parameter.size(0), columns = parameter.size(1);
    const double ratio =
        s.match_rms_adamw ? 0.2 * std::sqrt(std::max(rows, columns)) : std::sqrt(std::max(1.0, rows / columns));
    scale(parameter, 1 - s.learning_rate * s.weight_decay);
    parameter.add_(direction, -(s.learning_rate * ratio));
  }
}

// optimi.StableAdamW: AdamW whose rate shrinks where gradients outgrow their second moment. The betas arrive debiased. A
// third state is the compensation of Kahan's summation.
void stable_adamw(Batch& batch, const UpdateSettings& s) {
  for (std::size_t i = 0; i < batch.parameters.size(); ++i) {
    auto& parameter = batch.parameters[i];
    const auto& gradient = batch.gradients[i];
    auto &exp_avg = batch.states[0][i], &exp_avg_sq = batch.states[1][i];
    exp_avg.lerp_(gradient, 1 - s.beta1);
    scale(exp_avg_sq, s.beta2).addcmul_(gradient, gradient, 1 - s.beta2);
    const auto least = at::scalar_tensor(s.epsilon * s.epsilon, parameter.options());
    const auto rms = gradient.pow(2).div_(exp_avg_sq.maximum(least)).mean().sqrt().item<double>();
    // As Python's max(1, nan): one.
    const double rate = s.learning_rate / (rms > 1 ? rms : 1);
    if (s.weight_decay != 0) scale(parameter, 1 - (rate / s.rate_unit) * s.weight_decay);
    const auto denominator = exp_avg_sq.sqrt().add_(s.epsilon);
    if (batch.states.size() == 2) {
      parameter.addcdiv_(exp_avg, denominator, -rate);
      continue;
    }
    auto& compensation = batch.states[2][i];
    compensation.addcdiv_(exp_avg, denominator, -rate);
    auto before = parameter.clone();
    parameter.add_(compensation);
    compensation.add_(before.sub_(parameter));
  }
}

// schedulefree.AdamWScheduleFree in training: the parameters are y, the first state z.
void schedule_free_adamw(Batch& batch, const UpdateSettings& s) {
  auto &iterates = batch.states[0], &exp_avg_sqs = batch.states[1];
  at::_foreach_mul_(exp_avg_sqs, at::Scalar(s.beta2));
  at::_foreach_addcmul_(exp_avg_sqs, batch.gradients, batch.gradients, at::Scalar(1 - s.beta2));
  auto updates = at::_foreach_div(exp_avg_sqs, scalars(batch.steps, [&](double step) {
                                    return 1 - std::pow(s.beta2, step);
                                  }));
  at::_foreach_sqrt_(updates);
  at::_foreach_add_(updates, at::Scalar(s.epsilon));
  updates = at::_foreach_div(batch.gradients, updates);
  if (s.weight_decay != 0) at::_foreach_add_(updates, batch.parameters, s.weight_decay);
  at::_foreach_lerp_(batch.parameters, iterates, at::Scalar(s.average_weight));
  at::_foreach_add_(batch.parameters, updates, s.learning_rate * (s.beta1 * (1 - s.average_weight) - 1));
  at::_foreach_sub_(iterates, updates, s.learning_rate);
}

using Rule = void (*)(Batch&, const UpdateSettings&);

Rule function_of(UpdateRule rule) {
  switch (rule) {
    case UpdateRule::Adamw: return adamw;
    case UpdateRule::AdamwHf: return adamw_hf;
    case UpdateRule::Anyprecision: return anyprecision;
    case UpdateRule::Adagrad: return adagrad;
    case UpdateRule::Rmsprop: return rmsprop;
    case UpdateRule::Adamw32bit: return adamw_32bit;
    case UpdateRule::Lion32bit: return lion_32bit;
    case UpdateRule::Adamw8bit: return adamw_8bit;
    case UpdateRule::Lion8bit: return lion_8bit;
    case UpdateRule::Muon: return muon;
    case UpdateRule::StableAdamw: return stable_adamw;
    case UpdateRule::ScheduleFreeAdamw: return schedule_free_adamw;
  }
  TORCH_CHECK(false, "an update rule without a function");
}

}  // namespace

void update_step(UpdateRule rule, rust::Slice<const std::size_t> parameters, rust::Slice<const std::size_t> states,
                 rust::Slice<const double> steps, const UpdateSettings& settings) {
  at::NoGradGuard no_grad;
  const auto function = function_of(rule);
  for (auto& batch : batches(parameters, states, steps)) function(batch, settings);
}

// For each upper half of a float32 the code of the least float with it; the code of any other one is found upward from there.
std::size_t quantisation_table(std::size_t map) {
  const auto bounds = middles(tensor_at(map));
  const auto* bound = bounds.const_data_ptr<float>();
  auto table = at::empty({1 << 16}, at::kByte);
  auto* code = table.mutable_data_ptr<std::uint8_t>();
  for (std::uint32_t half = 0; half < 1 << 16; ++half) {
    const std::uint32_t bits = half << 16 | (half >> 15 ? 0xffff : 0);
    float least;
    std::memcpy(&least, &bits, sizeof least);
    code[half] = std::isnan(least) ? 255 : static_cast<std::uint8_t>(std::lower_bound(bound, bound + 255, least) - bound);
  }
  return reinterpret_cast<std::size_t>(new at::Tensor(table));
}

void lerp_in_place(std::size_t target, std::size_t end, double weight) {
  at::NoGradGuard no_grad;
  tensor_at(target).lerp_(tensor_at(end), weight);
}

}  // namespace torch_bridge
}  // namespace host
