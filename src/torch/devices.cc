// Devices: the CUDA half of libtorch, which is loaded only by a run that may use a GPU, and what the CPU has no need of.
#include <dlfcn.h>

#include <cstdio>
#include <string>

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/CachingDeviceAllocator.h>

#include "host/src/torch/bridge.h"
#include "host/src/torch/bridge.rs.h"

namespace host {
namespace torch_bridge {

namespace {

// cudaDevAttrComputeCapabilityMajor and Minor of the CUDA runtime's C interface.
constexpr int kCapabilityMajor = 75;
constexpr int kCapabilityMinor = 76;

}  // namespace

// The linker leaves libtorch_cuda out, because nothing here refers to it: its kernels register themselves when it is
// loaded. False: this libtorch has none.
bool cuda_load() {
  Dl_info info;
  TORCH_CHECK(dladdr(reinterpret_cast<const void*>(&at::globalContext), &info) != 0, "libtorch_cpu cannot be located");
  const std::string cpu(info.dli_fname);
  const auto path = cpu.substr(0, cpu.find_last_of('/') + 1) + "libtorch_cuda.so";
  if (std::FILE* file = std::fopen(path.c_str(), "rb")) {
    std::fclose(file);
  } else {
    return false;
  }
  TORCH_CHECK(dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) != nullptr, dlerror());
  return true;
}

std::int32_t cuda_capability(std::int32_t index) {
  using GetAttribute = int (*)(int*, int, int);
  const auto get = reinterpret_cast<GetAttribute>(dlsym(RTLD_DEFAULT, "cudaDeviceGetAttribute"));
  TORCH_CHECK(get != nullptr, "the CUDA runtime is not loaded");
  int major = 0;
  int minor = 0;
  TORCH_CHECK(get(&major, kCapabilityMajor, index) == 0 && get(&minor, kCapabilityMinor, index) == 0,
              "the compute capability of GPU ", index, " cannot be read");
  return 10 * major + minor;
}

DeviceMemory cuda_memory(std::int32_t index) {
  const auto stats = at::getDeviceAllocator(at::kCUDA)->getDeviceStats(static_cast<at::DeviceIndex>(index));
  const auto& allocated = stats.allocated_bytes[static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
  return DeviceMemory{static_cast<std::uint64_t>(allocated.current), static_cast<std::uint64_t>(allocated.peak)};
}

void cuda_forget_peak(std::int32_t index) {
  at::getDeviceAllocator(at::kCUDA)->resetPeakStats(static_cast<at::DeviceIndex>(index));
}

// As torch.nn.Module.to(device): the tensors stay the same objects.
void move_tensors(rust::Slice<const std::size_t> tensors, std::int32_t index) {
  at::NoGradGuard no_grad;
  const auto device = device_at(index);
  for (auto address : tensors) tensor_at(address).set_data(tensor_at(address).to(device));
}

}  // namespace torch_bridge
}  // namespace host
