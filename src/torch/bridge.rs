//! The cxx bridge: what tch does not expose of libtorch. Only `torch` sees it.
//!
//! Tensors cross as addresses of `at::Tensor` objects owned by the caller (`tch::Tensor::as_ptr`); a returned address is
//! a new heap object whose owner is the caller (`tch::Tensor::from_ptr`). No C++ exception passes: cxx turns each into
//! `Err` with its text.

#![allow(unsafe_code)]

use super::recompute::Segment;

#[cxx::bridge(namespace = "host::torch_bridge")]
pub mod ffi {
    /// A named tensor that C++ hands over; `address` is owned by the receiver.
    struct NamedTensor {
        name: String,
        address: usize,
    }

    /// What a TorchScript module returned.
    struct ScriptOutput {
        /// Empty names for a tuple.
        fields: Vec<NamedTensor>,
        /// Whether it was a dictionary.
        is_dictionary: bool,
    }

    /// Bytes that an allocator has given out.
    #[derive(Clone, Copy, Debug)]
    struct DeviceMemory {
        /// Now.
        allocated: u64,
        /// At most, since the peak was last forgotten.
        peak: u64,
    }

    /// How a step changes parameters; `update_rules.cc` has one function for each.
    #[derive(Clone, Copy, Debug)]
    enum UpdateRule {
        /// torch's. States: exp_avg, exp_avg_sq.
        Adamw,
        /// That of transformers. States: exp_avg, exp_avg_sq.
        AdamwHf,
        /// States: exp_avg, exp_avg_sq and, for Kahan's summation, compensation; of any types.
        Anyprecision,
        /// States: sum.
        Adagrad,
        /// States: square_avg; `beta2` is its alpha.
        Rmsprop,
        /// States: state1, state2 of bitsandbytes.
        Adamw32bit,
        /// States: state1 of bitsandbytes.
        Lion32bit,
        /// States: codes, scales, map and table of both moments.
        Adamw8bit,
        /// States: codes, scales, map and table of the moment.
        Lion8bit,
        /// States: momentum_buffer; matrices only. `beta1` is the momentum.
        Muon,
        /// States: exp_avg, exp_avg_sq and, for Kahan's summation, compensation. The betas are debiased.
        StableAdamw,
        /// States: z, exp_avg_sq.
        ScheduleFreeAdamw,
    }

    /// Numbers of one step of a group; a rule reads those it has.
    #[derive(Clone, Copy, Debug)]
    struct UpdateSettings {
        /// Present rate.
        learning_rate: f64,
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to denominators.
        epsilon: f64,
        /// Decay of the weights.
        weight_decay: f64,
        /// AdamW of transformers: correct the bias of the moments.
        correct_bias: bool,
        /// StableAdamW: decay is `weight_decay` times the rate in units of this.
        rate_unit: f64,
        /// Schedule-free: weight of the newest iterate in the average.
        average_weight: f64,
        /// Muon: look ahead by the momentum.
        nesterov: bool,
        /// Muon: iterations of the orthogonalisation.
        newton_schulz_steps: u32,
        /// Muon: scale updates to the root mean square of AdamW's.
        match_rms_adamw: bool,
    }

    extern "Rust" {
        type Segment;
        fn run(self: &Segment, input: usize) -> Result<usize>;
    }

    unsafe extern "C++" {
        include!("host/src/torch/bridge.h");

        type Generator;
        fn new_generator(seed: u64) -> Result<UniquePtr<Generator>>;
        fn generator_state(generator: &Generator) -> Result<Vec<u8>>;
        fn set_generator_state(generator: Pin<&mut Generator>, state: &[u8]) -> Result<()>;
        fn generator_random_int64(generator: Pin<&mut Generator>) -> Result<i64>;
        fn generator_randperm(generator: Pin<&mut Generator>, n: i64) -> Result<Vec<i64>>;

        fn default_generator() -> Result<UniquePtr<Generator>>;
        fn generator_bernoulli(
            generator: Pin<&mut Generator>,
            probabilities: usize,
        ) -> Result<usize>;
        fn generator_randint(
            generator: Pin<&mut Generator>,
            low: i64,
            high: i64,
            shape: &[i64],
        ) -> Result<usize>;

        fn manual_seed(seed: u64) -> Result<()>;
        fn default_generator_state() -> Result<Vec<u8>>;
        fn set_default_generator_state(state: &[u8]) -> Result<()>;
        fn default_random_int64() -> Result<i64>;
        fn skip_default_generator(count: u64) -> Result<()>;
        fn default_randperm(n: i64) -> Result<Vec<i64>>;

        fn set_num_threads(threads: i32) -> Result<()>;
        fn num_threads() -> i32;

        fn dropout(input: usize, probability: f64) -> Result<usize>;

        fn set_gradient(parameter: usize, gradient: usize) -> Result<()>;
        fn clear_gradients(parameters: &[usize]) -> Result<()>;
        fn clip_gradients(parameters: &[usize], max_norm: f64) -> Result<f64>;
        fn gradients_are_finite(parameters: &[usize]) -> Result<bool>;

        #[allow(clippy::too_many_arguments)]
        fn adamw_step(
            parameters: &[usize],
            exp_avgs: &[usize],
            exp_avg_sqs: &[usize],
            steps: &[usize],
            learning_rate: f64,
            beta1: f64,
            beta2: f64,
            weight_decay: f64,
            epsilon: f64,
            fused: bool,
        ) -> Result<()>;
        fn sgd_step(parameters: &[usize], learning_rate: f64, weight_decay: f64) -> Result<()>;
        fn add_scaled(target: usize, other: usize, factor: f64) -> Result<()>;
        fn update_step(
            rule: UpdateRule,
            parameters: &[usize],
            states: &[usize],
            steps: &[f64],
            settings: &UpdateSettings,
        ) -> Result<()>;
        fn quantisation_table(map: usize) -> Result<usize>;
        fn lerp_in_place(target: usize, end: usize, weight: f64) -> Result<()>;

        fn set_dtypes(tensors: &[usize], dtype: i32) -> Result<()>;
        fn unscale_gradients(parameters: &[usize], inverse: f32) -> Result<bool>;
        fn allow_tf32(allowed: bool) -> Result<()>;
        fn set_deterministic() -> Result<()>;
        fn free_caches(device: i32) -> Result<()>;

        fn cuda_load() -> Result<bool>;
        fn cuda_capability(index: i32) -> Result<i32>;
        fn cuda_generator_state(index: i32) -> Result<Vec<u8>>;
        fn set_cuda_generator_state(index: i32, state: &[u8]) -> Result<()>;
        fn cuda_memory(index: i32) -> Result<DeviceMemory>;
        fn cuda_forget_peak(index: i32) -> Result<()>;
        fn move_tensors(tensors: &[usize], index: i32) -> Result<()>;

        fn autocast_set(device: i32, enabled: bool, dtype: i32) -> Result<bool>;
        fn autocast_clear_cache() -> Result<()>;

        type SegmentStart;
        fn segment_start(input: usize) -> Result<UniquePtr<SegmentStart>>;
        fn recompute_in_backward(
            start: &SegmentStart,
            input: usize,
            output: usize,
            segment: Box<Segment>,
        ) -> Result<usize>;

        type ScriptModule;
        fn script_load(path: &str, index: i32) -> Result<UniquePtr<ScriptModule>>;
        fn script_arguments(module: &ScriptModule) -> Result<Vec<String>>;
        fn script_required_arguments(module: &ScriptModule) -> Result<Vec<String>>;
        fn script_parameters(module: &ScriptModule) -> Result<Vec<NamedTensor>>;
        fn script_buffers(module: &ScriptModule) -> Result<Vec<NamedTensor>>;
        fn script_layer_norms(module: &ScriptModule) -> Result<Vec<String>>;
        fn script_set_training(module: Pin<&mut ScriptModule>, training: bool) -> Result<()>;
        fn script_set_dtype(module: Pin<&mut ScriptModule>, dtype: i32) -> Result<()>;
        fn script_forward(
            module: Pin<&mut ScriptModule>,
            names: &[String],
            tensors: &[usize],
        ) -> Result<ScriptOutput>;
        fn script_freeze(module: &ScriptModule) -> Result<UniquePtr<ScriptModule>>;
        fn script_save(module: &ScriptModule, path: &str) -> Result<()>;
        fn script_fuse_on_cpu(enabled: bool) -> Result<()>;
        fn script_fused_groups() -> Result<usize>;

        type Package;
        fn load_library(path: &str) -> Result<()>;
        fn package_load(path: &str) -> Result<UniquePtr<Package>>;
        fn package_call_spec(package: &Package) -> Result<Vec<String>>;
        fn package_device(package: &Package) -> Result<String>;
        fn package_run(package: &Package, tensors: &[usize]) -> Result<Vec<usize>>;
    }
}
