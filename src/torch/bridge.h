// Declarations of the bridge; see bridge.rs for who owns what. Implementations: the .cc files beside this one.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/ScalarOps.h>

#include "rust/cxx.h"

namespace torch {
namespace jit {
struct Module;
}
namespace inductor {
class AOTIModelPackageLoader;
}
}  // namespace torch

namespace host {
namespace torch_bridge {

struct NamedTensor;
struct Segment;
struct ScriptOutput;
struct DeviceMemory;
enum class UpdateRule : std::uint8_t;
struct UpdateSettings;

struct Generator {
  at::Generator inner;
};

// A shared pointer, so that this header need not include all of TorchScript.
struct ScriptModule {
  std::shared_ptr<torch::jit::Module> inner;
};

// The same for AOT packages.
struct Package {
  std::shared_ptr<torch::inductor::AOTIModelPackageLoader> inner;
};

using GeneratorStates = std::vector<std::pair<at::Generator, at::Tensor>>;

// What a segment that is computed twice begins with.
struct SegmentStart {
  at::Device device;
  GeneratorStates generators;
  bool autocast;
  at::ScalarType autocast_dtype;
};

inline at::Tensor& tensor_at(std::size_t address) {
  return *reinterpret_cast<at::Tensor*>(address);
}

// A negative index is the CPU, else that of a GPU.
inline at::Device device_at(std::int32_t index) {
  return index < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<at::DeviceIndex>(index));
}

// tensor.mul_(factor) as Python calls it: half precision rounds the factor first, which Tensor::mul_(Scalar) does not.
inline at::Tensor& scale(at::Tensor& tensor, double factor) {
  return tensor.mul_(at::native::wrapped_scalar_tensor(factor));
}

std::unique_ptr<Generator> new_generator(std::uint64_t seed);
rust::Vec<std::uint8_t> generator_state(const Generator& generator);
void set_generator_state(Generator& generator, rust::Slice<const std::uint8_t> state);
std::int64_t generator_random_int64(Generator& generator);
rust::Vec<std::int64_t> generator_randperm(Generator& generator, std::int64_t n);

std::unique_ptr<Generator> default_generator();
std::size_t generator_bernoulli(Generator& generator, std::size_t probabilities);
std::size_t generator_randint(Generator& generator, std::int64_t low, std::int64_t high,
                              rust::Slice<const std::int64_t> shape);

void manual_seed(std::uint64_t seed);
rust::Vec<std::uint8_t> default_generator_state();
void set_default_generator_state(rust::Slice<const std::uint8_t> state);
std::int64_t default_random_int64();
void skip_default_generator(std::uint64_t count);
rust::Vec<std::int64_t> default_randperm(std::int64_t n);

void set_num_threads(std::int32_t threads);
std::int32_t num_threads();

std::size_t dropout(std::size_t input, double probability);

void set_gradient(std::size_t parameter, std::size_t gradient);
void clear_gradients(rust::Slice<const std::size_t> parameters);
double clip_gradients(rust::Slice<const std::size_t> parameters, double max_norm);
bool gradients_are_finite(rust::Slice<const std::size_t> parameters);

void adamw_step(rust::Slice<const std::size_t> parameters, rust::Slice<const std::size_t> exp_avgs,
                rust::Slice<const std::size_t> exp_avg_sqs, rust::Slice<const std::size_t> steps,
                double learning_rate, double beta1, double beta2, double weight_decay, double epsilon, bool fused);
void sgd_step(rust::Slice<const std::size_t> parameters, double learning_rate, double weight_decay);
void add_scaled(std::size_t target, std::size_t other, double factor);
void update_step(UpdateRule rule, rust::Slice<const std::size_t> parameters, rust::Slice<const std::size_t> states,
                 rust::Slice<const double> steps, const UpdateSettings& settings);
std::size_t quantisation_table(std::size_t map);
void lerp_in_place(std::size_t target, std::size_t end, double weight);

void set_dtype(const at::Tensor& tensor, at::ScalarType dtype);
void set_dtypes(rust::Slice<const std::size_t> tensors, std::int32_t dtype);
bool unscale_gradients(rust::Slice<const std::size_t> parameters, float inverse);
void allow_tf32(bool allowed);
void set_deterministic();
void free_caches(std::int32_t device);

bool cuda_load();
std::int32_t cuda_capability(std::int32_t index);
rust::Vec<std::uint8_t> cuda_generator_state(std::int32_t index);
void set_cuda_generator_state(std::int32_t index, rust::Slice<const std::uint8_t> state);
DeviceMemory cuda_memory(std::int32_t index);
void cuda_forget_peak(std::int32_t index);
void move_tensors(rust::Slice<const std::size_t> tensors, std::int32_t index);

bool autocast_set(std::int32_t device, bool enabled, std::int32_t dtype);
void autocast_clear_cache();

std::unique_ptr<SegmentStart> segment_start(std::size_t input);
std::size_t recompute_in_backward(const SegmentStart& start, std::size_t input, std::size_t output,
                                  rust::Box<Segment> segment);

std::unique_ptr<ScriptModule> script_load(rust::Str path, std::int32_t index);
rust::Vec<rust::String> script_arguments(const ScriptModule& module);
rust::Vec<rust::String> script_required_arguments(const ScriptModule& module);
rust::Vec<NamedTensor> script_parameters(const ScriptModule& module);
rust::Vec<NamedTensor> script_buffers(const ScriptModule& module);
rust::Vec<rust::String> script_layer_norms(const ScriptModule& module);
void script_set_training(ScriptModule& module, bool training);
void script_set_dtype(ScriptModule& module, std::int32_t dtype);
ScriptOutput script_forward(ScriptModule& module, rust::Slice<const rust::String> names,
                            rust::Slice<const std::size_t> tensors);
std::unique_ptr<ScriptModule> script_freeze(const ScriptModule& module);
void script_save(const ScriptModule& module, rust::Str path);
void script_fuse_on_cpu(bool enabled);
std::size_t script_fused_groups();

void load_library(rust::Str path);
std::unique_ptr<Package> package_load(rust::Str path);
rust::Vec<rust::String> package_call_spec(const Package& package);
rust::String package_device(const Package& package);
rust::Vec<std::size_t> package_run(const Package& package, rust::Slice<const std::size_t> tensors);

}  // namespace torch_bridge
}  // namespace host
