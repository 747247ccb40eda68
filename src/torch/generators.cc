// Random generators, threads and autocast: thin calls into ATen, no state of their own.
#include <cstring>
#include <mutex>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>

#include "host/src/torch/bridge.h"
#include "host/src/torch/bridge.rs.h"

namespace host {
namespace torch_bridge {
namespace {

rust::Vec<std::uint8_t> bytes_of(const at::Tensor& state) {
  rust::Vec<std::uint8_t> bytes;
  const auto* data = state.const_data_ptr<std::uint8_t>();
  bytes.reserve(static_cast<std::size_t>(state.numel()));
  for (std::int64_t i = 0; i < state.numel(); ++i) bytes.push_back(data[i]);
  return bytes;
}

at::Tensor tensor_of(rust::Slice<const std::uint8_t> bytes) {
  auto state = at::empty({static_cast<std::int64_t>(bytes.size())}, at::kByte);
  std::memcpy(state.mutable_data_ptr<std::uint8_t>(), bytes.data(), bytes.size());
  return state;
}

rust::Vec<std::int64_t> permutation(std::int64_t n, std::optional<at::Generator> generator) {
  auto order = at::randperm(n, generator, at::TensorOptions().dtype(at::kLong));
  rust::Vec<std::int64_t> result;
  result.reserve(static_cast<std::size_t>(n));
  const auto* data = order.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < n; ++i) result.push_back(data[i]);
  return result;
}

// One int64 as `torch.empty((), dtype=torch.int64).random_(generator=...)` draws it.
std::int64_t random_int64(std::optional<at::Generator> generator) {
  return at::empty({}, at::kLong).random_(generator).item<std::int64_t>();
}

}  // namespace

std::unique_ptr<Generator> new_generator(std::uint64_t seed) {
  return std::make_unique<Generator>(Generator{at::detail::createCPUGenerator(seed)});
}

rust::Vec<std::uint8_t> generator_state(const Generator& generator) { return bytes_of(generator.inner.get_state()); }

void set_generator_state(Generator& generator, rust::Slice<const std::uint8_t> state) {
  generator.inner.set_state(tensor_of(state));
}

std::int64_t generator_random_int64(Generator& generator) { return random_int64(generator.inner); }

rust::Vec<std::int64_t> generator_randperm(Generator& generator, std::int64_t n) {
  return permutation(n, generator.inner);
}

// A handle of the one default generator, not a copy of it.
std::unique_ptr<Generator> default_generator() {
  return std::make_unique<Generator>(Generator{at::detail::getDefaultCPUGenerator()});
}

std::size_t generator_bernoulli(Generator& generator, std::size_t probabilities) {
  return reinterpret_cast<std::size_t>(new at::Tensor(at::bernoulli(tensor_at(probabilities), generator.inner)));
}

std::size_t generator_randint(Generator& generator, std::int64_t low, std::int64_t high,
                              rust::Slice<const std::int64_t> shape) {
  const at::IntArrayRef size(shape.data(), shape.size());
  const auto options = at::TensorOptions().dtype(at::kLong);
  return reinterpret_cast<std::size_t>(new at::Tensor(at::randint(low, high, size, generator.inner, options)));
}

void manual_seed(std::uint64_t seed) { at::manual_seed(seed); }

rust::Vec<std::uint8_t> default_generator_state() { return bytes_of(at::detail::getDefaultCPUGenerator().get_state()); }

void set_default_generator_state(rust::Slice<const std::uint8_t> state) {
  auto generator = at::detail::getDefaultCPUGenerator();
  std::lock_guard<std::mutex> guard(generator.mutex());
  generator.set_state(tensor_of(state));
}

rust::Vec<std::uint8_t> cuda_generator_state(std::int32_t index) {
  auto generator = at::globalContext().defaultGenerator(device_at(index));
  std::lock_guard<std::mutex> guard(generator.mutex());
  return bytes_of(generator.get_state());
}

void set_cuda_generator_state(std::int32_t index, rust::Slice<const std::uint8_t> state) {
  auto generator = at::globalContext().defaultGenerator(device_at(index));
  std::lock_guard<std::mutex> guard(generator.mutex());
  generator.set_state(tensor_of(state));
}

std::int64_t default_random_int64() { return random_int64(std::nullopt); }

void skip_default_generator(std::uint64_t count) {
  auto generator = at::detail::getDefaultCPUGenerator();
  std::lock_guard<std::mutex> lock(generator.mutex());
  auto* default_generator = at::check_generator<at::CPUGeneratorImpl>(generator);
  auto engine = default_generator->engine();
  for (std::uint64_t drawn = 0; drawn < count; ++drawn) engine();
  default_generator->set_engine(engine);
}

rust::Vec<std::int64_t> default_randperm(std::int64_t n) { return permutation(n, std::nullopt); }

void set_num_threads(std::int32_t threads) { at::set_num_threads(threads); }

std::int32_t num_threads() { return at::get_num_threads(); }

bool autocast_set(std::int32_t device, bool enabled, std::int32_t dtype) {
  const auto type = static_cast<at::DeviceType>(device);
  const bool before = at::autocast::is_autocast_enabled(type);
  at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(dtype));
  at::autocast::set_autocast_enabled(type, enabled);
  return before;
}

void autocast_clear_cache() { at::autocast::clear_cache(); }

}  // namespace torch_bridge
}  // namespace host
