// Dropout on the CPU, bit for bit that of libtorch: the same numbers of the default generator, the same product. libtorch draws
// and divides element by element; here numbers are made 624 at a time, in vector registers, and become factors at once.
#include <cmath>
#include <mutex>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "host/src/torch/bridge.h"

// The loops are compiled for several processors, and the best is chosen when the program starts.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define FOR_SEVERAL_PROCESSORS \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), optimize("O3")))
#else
#define FOR_SEVERAL_PROCESSORS
#endif

namespace host {
namespace torch_bridge {
namespace {

constexpr int kWords = at::MERSENNE_STATE_N;
constexpr int kShift = at::MERSENNE_STATE_M;
// An element takes two numbers of 32 bits, of which 53 bits count.
constexpr int kElements = kWords / 2;
constexpr std::uint32_t kUpperBits = (1u << 21) - 1;

#define TWISTED(u, v) \
  (((((u) & 0x80000000u) | ((v) & 0x7fffffffu)) >> 1) ^ ((0u - ((v) & 1u)) & 0x9908b0dfu))

// The next block of MT19937 and the numbers it stands for.
FOR_SEVERAL_PROCESSORS
void next_block(std::uint32_t* __restrict state, std::uint32_t* __restrict numbers) {
  for (int i = 0; i < kWords - kShift; ++i) state[i] = state[i + kShift] ^ TWISTED(state[i], state[i + 1]);
  for (int i = kWords - kShift; i < kWords - 1; ++i) {
    state[i] = state[i + kShift - kWords] ^ TWISTED(state[i], state[i + 1]);
  }
  state[kWords - 1] = state[kShift - 1] ^ TWISTED(state[kWords - 1], state[0]);
  for (int i = 0; i < kWords; ++i) {
    auto number = state[i];
    number ^= number >> 11;
    number ^= (number << 7) & 0x9d2c5680u;
    number ^= (number << 15) & 0xefc60000u;
    numbers[i] = number ^ (number >> 18);
  }
}

// Elements whose number is below `bound` are kept: they get `factor`, the others 0; both as bit patterns.
#define FACTORS(Word)                                                                                  \
  FOR_SEVERAL_PROCESSORS                                                                               \
  void factors(const std::uint32_t* __restrict numbers, std::uint64_t bound, Word factor,              \
               Word* __restrict elements) {                                                            \
    for (int i = 0; i < kElements; ++i) {                                                              \
      const auto upper = static_cast<std::uint64_t>(numbers[2 * i] & kUpperBits);                      \
      elements[i] = (upper << 32 | numbers[2 * i + 1]) < bound ? factor : Word{0};                     \
    }                                                                                                  \
  }
FACTORS(std::uint16_t)
FACTORS(std::uint32_t)
FACTORS(std::uint64_t)

template <typename Word>
void fill(at::Tensor& noise, const at::Tensor& kept, double probability) {
  auto generator = at::detail::getDefaultCPUGenerator();
  std::lock_guard<std::mutex> lock(generator.mutex());
  auto* owner = at::check_generator<at::CPUGeneratorImpl>(generator);
  auto engine = owner->engine();
  const auto factor = *static_cast<const Word*>(kept.const_data_ptr());
  // A number of 53 bits times 2^-53 is below the probability.
  const auto bound = static_cast<std::uint64_t>(std::ceil(probability * 9007199254740992.0));
  auto* element = static_cast<Word*>(noise.mutable_data_ptr());
  auto* const end = element + noise.numel();
  const auto single = [&] {
    const auto upper = static_cast<std::uint64_t>(engine() & kUpperBits);
    *element++ = (upper << 32 | engine()) < bound ? factor : Word{0};
  };
  // What is left of the present block. An odd number was drawn before if it does not come out even.
  while (element < end && engine.data().left_ != 1) single();
  if (end - element >= kElements && engine.data().left_ == 1) {
    auto data = engine.data();
    std::uint32_t numbers[kWords];
    for (; end - element >= kElements; element += kElements) {
      next_block(data.state_.data(), numbers);
      factors(numbers, bound, factor, element);
    }
    data.left_ = 1;
    data.next_ = kWords;
    engine.set_data(data);
  }
  while (element < end) single();
  owner->set_engine(engine);
}

}  // namespace

std::size_t dropout(std::size_t input, double probability) {
  const auto& tensor = tensor_at(input);
  const auto keep = 1 - probability;
  auto noise = at::empty_like(tensor.detach());
  const bool is_plain = tensor.is_cpu() && tensor.is_floating_point() && noise.is_non_overlapping_and_dense();
  if (!is_plain || !(keep > 0 && keep < 1) || tensor.numel() == 0) {
    return reinterpret_cast<std::size_t>(new at::Tensor(at::dropout(tensor, probability, true)));
  }
  const auto kept = at::ones({1}, noise.options()).div_(keep);
  switch (noise.element_size()) {
    case 2: fill<std::uint16_t>(noise, kept, keep); break;
    case 4: fill<std::uint32_t>(noise, kept, keep); break;
    default: fill<std::uint64_t>(noise, kept, keep); break;
  }
  return reinterpret_cast<std::size_t>(new at::Tensor(tensor * noise));
}

}  // namespace torch_bridge
}  // namespace host
