// Types of parameters, scaled gradients, and the switches of the global context.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/CachingDeviceAllocator.h>

#include "host/src/torch/bridge.h"

namespace host {
namespace torch_bridge {

// As torch.nn.Module.to(dtype): only floating point tensors, which stay the same objects.
void set_dtype(const at::Tensor& tensor, at::ScalarType dtype) {
  at::NoGradGuard no_grad;
  if (tensor.is_floating_point()) tensor.set_data(tensor.to(dtype));
}

void set_dtypes(rust::Slice<const std::size_t> tensors, std::int32_t dtype) {
  for (auto address : tensors) set_dtype(tensor_at(address), static_cast<at::ScalarType>(dtype));
}

// torch.amp.GradScaler._unscale_grads_: one check and one multiplication for all gradients of a device and type.
bool unscale_gradients(rust::Slice<const std::size_t> parameters, float inverse) {
  at::NoGradGuard no_grad;
  std::vector<std::vector<at::Tensor>> groups;
  for (auto address : parameters) {
    const auto& gradient = tensor_at(address).grad();
    if (!gradient.defined()) continue;
    auto group = groups.begin();
    while (group != groups.end() && (group->front().device() != gradient.device() ||
                                     group->front().scalar_type() != gradient.scalar_type())) ++group;
    if (group == groups.end()) group = groups.insert(groups.end(), std::vector<at::Tensor>{});
    group->push_back(gradient);
  }
  bool finite = true;
  for (auto& gradients : groups) {
    const auto options = at::TensorOptions().dtype(at::kFloat).device(gradients.front().device());
    auto found = at::zeros({}, options);
    at::_amp_foreach_non_finite_check_and_unscale_(gradients, found, at::full({}, inverse, options));
    finite = finite && found.item<float>() == 0;
  }
  return finite;
}

void allow_tf32(bool allowed) {
  at::globalContext().setAllowTF32CuBLAS(allowed);
  at::globalContext().setAllowTF32CuDNN(allowed);
}

// torch.use_deterministic_algorithms(True) and torch.backends.cudnn.deterministic, benchmark.
void set_deterministic() {
  at::globalContext().setDeterministicAlgorithms(true, false);
  at::globalContext().setDeterministicCuDNN(true);
  at::globalContext().setBenchmarkCuDNN(false);
}

// What an allocator holds back of memory that nobody uses; the CPU's holds nothing back.
void free_caches(std::int32_t device) {
  const auto type = static_cast<at::DeviceType>(device);
  if (type != at::kCPU) at::getDeviceAllocator(type)->emptyCache();
}

}  // namespace torch_bridge
}  // namespace host
