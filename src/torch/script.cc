// TorchScript modules: arguments by name, parameters and buffers in state-dict order, tuples or dictionaries back.
#include <fstream>

#include <torch/csrc/jit/codegen/onednn/interface.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/script.h>

#include "host/src/torch/bridge.h"
#include "host/src/torch/bridge.rs.h"

namespace host {
namespace torch_bridge {

namespace {

std::size_t owned(const at::Tensor& tensor) { return reinterpret_cast<std::size_t>(new at::Tensor(tensor)); }

void push(rust::Vec<NamedTensor>& fields, const std::string& name, const at::Tensor& tensor) {
  fields.push_back(NamedTensor{rust::String(name), owned(tensor)});
}

// Nodes that stand for several operations, in a block and those inside it.
std::size_t fused_groups(torch::jit::Block* block) {
  static const auto on_cpu = c10::Symbol::fromQualString("prim::oneDNNFusionGroup");
  std::size_t groups = 0;
  for (auto* node : block->nodes()) {
    groups += node->kind() == on_cpu || node->kind() == c10::prim::TensorExprGroup ? 1 : 0;
    for (auto* inner : node->blocks()) groups += fused_groups(inner);
  }
  return groups;
}

}  // namespace

// Constants of the code move only here.
std::unique_ptr<ScriptModule> script_load(rust::Str path, std::int32_t index) {
  auto module = torch::jit::load(std::string(path), device_at(index));
  return std::make_unique<ScriptModule>(ScriptModule{std::make_shared<torch::jit::Module>(std::move(module))});
}

rust::Vec<rust::String> script_arguments(const ScriptModule& module) {
  rust::Vec<rust::String> names;
  const auto& arguments = module.inner->get_method("forward").function().getSchema().arguments();
  for (std::size_t i = 1; i < arguments.size(); ++i) names.push_back(rust::String(arguments[i].name()));
  return names;
}

rust::Vec<rust::String> script_required_arguments(const ScriptModule& module) {
  rust::Vec<rust::String> names;
  const auto& arguments = module.inner->get_method("forward").function().getSchema().arguments();
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    if (!arguments[i].default_value()) names.push_back(rust::String(arguments[i].name()));
  }
  return names;
}

rust::Vec<NamedTensor> script_parameters(const ScriptModule& module) {
  rust::Vec<NamedTensor> fields;
  for (const auto& entry : module.inner->named_parameters(true)) push(fields, entry.name, entry.value);
  return fields;
}

rust::Vec<NamedTensor> script_buffers(const ScriptModule& module) {
  rust::Vec<NamedTensor> fields;
  for (const auto& entry : module.inner->named_buffers(true)) push(fields, entry.name, entry.value);
  return fields;
}

rust::Vec<rust::String> script_layer_norms(const ScriptModule& module) {
  rust::Vec<rust::String> names;
  for (const auto& entry : module.inner->named_modules()) {
    const auto type = entry.value.type()->name();
    if (type && type->name() == "LayerNorm") names.push_back(rust::String(entry.name));
  }
  return names;
}

void script_set_training(ScriptModule& module, bool training) { module.inner->train(training); }

// Module::to would convert counters and masks too.
void script_set_dtype(ScriptModule& module, std::int32_t dtype) {
  const auto type = static_cast<at::ScalarType>(dtype);
  for (const auto& tensor : module.inner->parameters()) set_dtype(tensor, type);
  for (const auto& tensor : module.inner->buffers()) set_dtype(tensor, type);
}

ScriptOutput script_forward(ScriptModule& module, rust::Slice<const rust::String> names,
                            rust::Slice<const std::size_t> tensors) {
  torch::jit::Kwargs arguments;
  for (std::size_t i = 0; i < names.size(); ++i) arguments[std::string(names[i])] = tensor_at(tensors[i]);
  const auto result = module.inner->forward({}, arguments);
  ScriptOutput output{{}, false};
  if (result.isTensor()) {
    push(output.fields, "", result.toTensor());
  } else if (result.isTuple()) {
    for (const auto& element : result.toTupleRef().elements()) {
      TORCH_CHECK(element.isTensor() || element.isNone(), "forward returned a tuple with ", element.tagKind(),
                  "; only tensors are supported");
      if (element.isTensor()) push(output.fields, "", element.toTensor());
    }
  } else if (result.isGenericDict()) {
    output.is_dictionary = true;
    for (const auto& entry : result.toGenericDict()) {
      TORCH_CHECK(entry.key().isString(), "forward returned a dictionary with keys of type ", entry.key().tagKind(),
                  "; only strings are supported");
      if (entry.value().isNone()) continue;
      TORCH_CHECK(entry.value().isTensor(), "forward returned a dictionary whose entry \"", entry.key().toStringRef(),
                  "\" is ", entry.value().tagKind(), "; only tensors are supported");
      push(output.fields, entry.key().toStringRef(), entry.value().toTensor());
    }
  } else {
    TORCH_CHECK(false, "forward returned ", result.tagKind(), "; expected a tensor, a tuple or a dictionary of tensors");
  }
  return output;
}

// The copy shares no attribute with the module, whose parameters go on changing.
std::unique_ptr<ScriptModule> script_freeze(const ScriptModule& module) {
  auto copy = module.inner->clone();
  copy.eval();
  return std::make_unique<ScriptModule>(ScriptModule{std::make_shared<torch::jit::Module>(torch::jit::freeze(copy))});
}

// torch.jit.enable_onednn_fusion: on the CPU nothing else of TorchScript fuses, as libtorch is built without LLVM.
void script_fuse_on_cpu(bool enabled) { torch::jit::RegisterLlgaFuseGraph::setEnabled(enabled); }

std::size_t script_fused_groups() {
  const auto graph = torch::jit::lastExecutedOptimizedGraph();
  return graph ? fused_groups(graph->block()) : 0;
}

void script_save(const ScriptModule& module, rust::Str path) { module.inner->save(std::string(path)); }

}  // namespace torch_bridge
}  // namespace host
