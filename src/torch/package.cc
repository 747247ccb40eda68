// AOT packages: models that torch.compile's inductor has compiled in advance.
#include <dlfcn.h>

#include <string>
#include <vector>

#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include "host/src/torch/bridge.h"
#include "host/src/torch/bridge.rs.h"

namespace host {
namespace torch_bridge {
void load_library(rust::Str path) {
  TORCH_CHECK(dlopen(std::string(path).c_str(), RTLD_NOW | RTLD_GLOBAL) != nullptr, dlerror());
}

std::unique_ptr<Package> package_load(rust::Str path) {
  auto loader = std::make_shared<torch::inductor::AOTIModelPackageLoader>(std::string(path));
  return std::make_unique<Package>(Package{std::move(loader)});
}

rust::Vec<rust::String> package_call_spec(const Package& package) {
  rust::Vec<rust::String> specs;
  for (const auto& spec : package.inner->get_call_spec()) specs.push_back(rust::String(spec));
  return specs;
}

rust::String package_device(const Package& package) {
  return rust::String(package.inner->get_metadata()["AOTI_DEVICE_KEY"]);
}

rust::Vec<std::size_t> package_run(const Package& package, rust::Slice<const std::size_t> tensors) {
  std::vector<at::Tensor> inputs;
  for (const auto address : tensors) inputs.push_back(tensor_at(address).contiguous());
  rust::Vec<std::size_t> outputs;
  for (const auto& output : package.inner->run(inputs)) {
    outputs.push_back(reinterpret_cast<std::size_t>(new at::Tensor(output)));
  }
  return outputs;
}

}  // namespace torch_bridge
}  // namespace host
