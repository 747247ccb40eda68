// Recomputation of activations: torch.utils.checkpoint, for a segment whose forward pass is a closure of Rust.
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "host/src/torch/bridge.h"
#include "host/src/torch/bridge.rs.h"

namespace host {
namespace torch_bridge {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The generators that operations on `device` draw from, as they are now.
GeneratorStates generator_states(at::Device device) {
  GeneratorStates states;
  const auto note = [&states](at::Generator generator) {
    std::lock_guard<std::mutex> guard(generator.mutex());
    states.emplace_back(generator, generator.get_state());
  };
  note(at::globalContext().defaultGenerator(at::kCPU));
  if (!device.is_cpu()) note(at::globalContext().defaultGenerator(device));
  return states;
}

void restore(const GeneratorStates& states) {
  for (auto [generator, state] : states) {
    std::lock_guard<std::mutex> guard(generator.mutex());
    generator.set_state(state);
  }
}

// Generators and autocast as they were when the segment began; on leaving, as they were before.
class AsAtStart {
 public:
  explicit AsAtStart(const SegmentStart& start)
      : type_(start.device.type()),
        generators_(generator_states(start.device)),
        enabled_(at::autocast::is_autocast_enabled(type_)),
        dtype_(at::autocast::get_autocast_dtype(type_)) {
    restore(start.generators);
    at::autocast::set_autocast_dtype(type_, start.autocast_dtype);
    at::autocast::set_autocast_enabled(type_, start.autocast);
  }

  ~AsAtStart() {
    restore(generators_);
    at::autocast::set_autocast_enabled(type_, enabled_);
    at::autocast::set_autocast_dtype(type_, dtype_);
    if (!enabled_) at::autocast::clear_cache();
  }

  AsAtStart(const AsAtStart&) = delete;
  AsAtStart& operator=(const AsAtStart&) = delete;

 private:
  at::DeviceType type_;
  GeneratorStates generators_;
  bool enabled_;
  at::ScalarType dtype_;
};

struct Recorded : torch::CustomClassHolder {
  Recorded(const SegmentStart& start, const at::Tensor& output, rust::Box<Segment> segment)
      : start(start), output(output), segment(std::move(segment)) {}

  SegmentStart start;
  at::Tensor output;
  rust::Box<Segment> segment;
};

struct Recomputed : public torch::autograd::Function<Recomputed> {
  // `anchor` requires a gradient, so that the parameters get theirs even where the input needs none.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& /*anchor*/,
                            const c10::intrusive_ptr<Recorded>& recorded) {
    context->save_for_backward({input});
    context->saved_data["recorded"] = c10::IValue::make_capsule(recorded);
    return std::move(recorded->output);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto input = context->get_saved_variables()[0];
    const auto capsule = context->saved_data["recorded"].toCapsule();
    const auto& recorded = static_cast<const Recorded&>(*capsule);
    auto leaf = input.detach();
    leaf.set_requires_grad(input.requires_grad());
    at::Tensor output;
    {
      at::AutoGradMode with_history(true);
      AsAtStart as_at_start(recorded.start);
      // In the first pass the input was no leaf; autocast would cast a leaf once instead of at each use, and the gradients
      // would be summed in half precision.
      const auto inner = at::alias(leaf);
      const auto address = recorded.segment->run(reinterpret_cast<std::size_t>(&inner));
      const std::unique_ptr<at::Tensor> owned(reinterpret_cast<at::Tensor*>(address));
      output = *owned;
    }
    torch::autograd::backward({output}, {gradients[0]});
    return {leaf.grad(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

std::unique_ptr<SegmentStart> segment_start(std::size_t input) {
  const auto device = tensor_at(input).device();
  return std::make_unique<SegmentStart>(SegmentStart{device, generator_states(device),
                                                     at::autocast::is_autocast_enabled(device.type()),
                                                     at::autocast::get_autocast_dtype(device.type())});
}

std::size_t recompute_in_backward(const SegmentStart& start, std::size_t input, std::size_t output,
                                  rust::Box<Segment> segment) {
  // A tensor of its own: the caller's handle stays without history.
  auto recorded = c10::make_intrusive<Recorded>(start, tensor_at(output).detach(), std::move(segment));
  const auto anchor = at::empty({0}, at::TensorOptions().device(start.device)).set_requires_grad(true);
  return reinterpret_cast<std::size_t>(new at::Tensor(Recomputed::apply(tensor_at(input), anchor, recorded)));
}

}  // namespace torch_bridge
}  // namespace host
