//! What tch does not expose of libtorch, behind safe functions. The only C++ and, but for two named exceptions, the only
//! `unsafe` of the program (I3).
//!
//! A function here takes and returns `tch::Tensor`; addresses of `at::Tensor` never leave this folder.

#![allow(unsafe_code)]

use anyhow::{Context, Result, bail};
use tch::{Device, Kind, Tensor};

mod bridge;
mod generator;
mod recompute;
mod script;
#[cfg(test)]
pub mod testing;

pub use generator::{
    Generator, default_generator_state, default_random_int64, default_randperm, manual_seed,
    set_default_generator_state, skip_normal, skip_uniform,
};
pub use recompute::recomputed;
pub use script::{ScriptModule, ScriptOutput};

use bridge::ffi;
pub use bridge::ffi::{UpdateRule, UpdateSettings};

fn addresses(tensors: &[Tensor]) -> Vec<usize> {
    tensors
        .iter()
        .map(|tensor| tensor.as_ptr() as usize)
        .collect()
}

/// Takes over a tensor that C++ has allocated.
fn adopt(address: usize) -> Tensor {
    // SAFETY: the bridge returns each address once, from `new at::Tensor`; tch frees it with `delete`.
    unsafe { Tensor::from_ptr(address as *mut _) }
}

/// libtorch's number of a floating point dtype (c10/core/ScalarType.h).
fn scalar_type(kind: Kind) -> Result<i32> {
    match kind {
        Kind::Half => Ok(5),
        Kind::Float => Ok(6),
        Kind::Double => Ok(7),
        Kind::BFloat16 => Ok(15),
        other => bail!("{other:?} is not a floating point dtype"),
    }
}

/// The libtorch that `tch` is made for; its build refuses others.
pub const VERSION: &str = "2.11.0";

/// A copy in the type `kind` that shares nothing with `tensor` and has no history.
pub fn copy_of(tensor: &Tensor, kind: Kind) -> Result<Tensor> {
    Ok(tensor.f_detach()?.f_to_dtype(kind, false, true)?)
}

/// Threads for one operation.
pub fn set_num_threads(threads: usize) -> Result<()> {
    ffi::set_num_threads(i32::try_from(threads)?).context("setting the number of libtorch threads")
}

/// Threads for one operation.
pub fn num_threads() -> usize {
    ffi::num_threads().max(1) as usize
}

/// Puts back the gradient of a group that was interrupted.
pub fn set_gradient(parameter: &Tensor, gradient: &Tensor) -> Result<()> {
    Ok(ffi::set_gradient(
        parameter.as_ptr() as usize,
        gradient.as_ptr() as usize,
    )?)
}

/// Sets gradients to none, so that the next backward pass writes instead of adding.
pub fn clear_gradients(parameters: &[Tensor]) -> Result<()> {
    Ok(ffi::clear_gradients(&addresses(parameters))?)
}

/// Scales the gradients so that their common L2 norm is at most `max_norm`; returns the norm before. Parameters without a
/// gradient do not count. With `f64::INFINITY` it only measures.
pub fn clip_gradients(parameters: &[Tensor], max_norm: f64) -> Result<f64> {
    Ok(ffi::clip_gradients(&addresses(parameters), max_norm)?)
}

/// Whether every gradient is finite.
pub fn gradients_are_finite(parameters: &[Tensor]) -> Result<bool> {
    Ok(ffi::gradients_are_finite(&addresses(parameters))?)
}

/// Multiplies the gradients by `inverse`. Whether all of them were finite; those that are not stay so.
pub fn unscale_gradients(parameters: &[Tensor], inverse: f32) -> Result<bool> {
    Ok(ffi::unscale_gradients(&addresses(parameters), inverse)?)
}

/// Converts floating point tensors in place, as `torch.nn.Module.to(dtype)`: every handle to them sees it.
pub fn set_kind(tensors: &[Tensor], kind: Kind) -> Result<()> {
    Ok(ffi::set_dtypes(&addresses(tensors), scalar_type(kind)?)?)
}

/// Whether matrix products and convolutions of a GPU may round their factors to TF32.
pub fn allow_tf32(allowed: bool) -> Result<()> {
    Ok(ffi::allow_tf32(allowed)?)
}

/// From now on libtorch takes deterministic kernels only, and fails where it has none.
pub fn set_deterministic() -> Result<()> {
    Ok(ffi::set_deterministic()?)
}

/// Gives memory that a device's allocator holds back to the system.
pub fn free_caches(device: Device) -> Result<()> {
    Ok(ffi::free_caches(i32::from(device.is_cuda()))?)
}

/// Moments of AdamW for a list of parameters, in the same order.
#[derive(Debug)]
pub struct AdamState<'a> {
    /// First moments.
    pub exp_avgs: &'a [Tensor],
    /// Second moments.
    pub exp_avg_sqs: &'a [Tensor],
    /// Step counts, float32 scalars.
    pub steps: &'a [Tensor],
}

/// Hyperparameters of one AdamW step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamParameters {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Use libtorch's fused kernel instead of torch's single-tensor sequence of operations.
    pub fused: bool,
}

/// One AdamW step in place. Parameters without a gradient are left alone.
pub fn adamw_step(
    parameters: &[Tensor],
    state: &AdamState<'_>,
    settings: AdamParameters,
) -> Result<()> {
    Ok(ffi::adamw_step(
        &addresses(parameters),
        &addresses(state.exp_avgs),
        &addresses(state.exp_avg_sqs),
        &addresses(state.steps),
        settings.learning_rate,
        settings.beta1,
        settings.beta2,
        settings.weight_decay,
        settings.epsilon,
        settings.fused,
    )?)
}

/// One SGD step without momentum, with plain L2 weight decay, in place.
pub fn sgd_step(parameters: &[Tensor], learning_rate: f64, weight_decay: f64) -> Result<()> {
    Ok(ffi::sgd_step(
        &addresses(parameters),
        learning_rate,
        weight_decay,
    )?)
}

/// `target += factor * other` in place and in one rounding, as `Tensor.add_(other, alpha=factor)`; without history.
pub fn add_scaled(target: &mut Tensor, other: &Tensor, factor: f64) -> Result<()> {
    Ok(ffi::add_scaled(
        target.as_ptr() as usize,
        other.as_ptr() as usize,
        factor,
    )?)
}

/// A parameter of a step: it has a gradient, and states as its rule wants them.
#[derive(Debug)]
pub struct Updated<'a> {
    /// The leaf tensor.
    pub parameter: &'a Tensor,
    /// As many as those of all other parameters of the step.
    pub states: Vec<&'a Tensor>,
    /// Steps, with the one that is made now.
    pub step: f64,
}

/// One step of a rule in place, over parameters that all have a gradient. Errors are libtorch's, for shapes and types that
/// do not fit.
pub fn update_step(
    rule: UpdateRule,
    updated: &[Updated<'_>],
    settings: &UpdateSettings,
) -> Result<()> {
    let address = |tensor: &Tensor| tensor.as_ptr() as usize;
    let parameters: Vec<_> = updated.iter().map(|item| address(item.parameter)).collect();
    let states = updated.iter().flat_map(|item| &item.states);
    let states: Vec<_> = states.map(|tensor| address(tensor)).collect();
    let steps: Vec<_> = updated.iter().map(|item| item.step).collect();
    if updated
        .iter()
        .any(|item| item.states.len() * updated.len() != states.len())
    {
        bail!("the parameters of a step differ in the number of their states");
    }
    Ok(ffi::update_step(
        rule,
        &parameters,
        &states,
        &steps,
        settings,
    )?)
}

/// What makes looking for the nearest value of `map` (256 float32 values on the CPU, ascending) fast: codes to begin at.
pub fn quantisation_table(map: &Tensor) -> Result<Tensor> {
    let is_map = map.size() == [256] && map.f_kind()? == Kind::Float && map.device() == Device::Cpu;
    anyhow::ensure!(is_map, "a map has 256 float32 values on the CPU");
    let address = ffi::quantisation_table(map.as_ptr() as usize)?;
    Ok(adopt(address))
}

/// `target += weight * (end - target)` in place, as `Tensor.lerp_`; without history.
pub fn lerp_in_place(target: &Tensor, end: &Tensor, weight: f64) -> Result<()> {
    Ok(ffi::lerp_in_place(
        target.as_ptr() as usize,
        end.as_ptr() as usize,
        weight,
    )?)
}

/// Autocast for one device type while it lives.
#[derive(Debug)]
pub struct Autocast {
    device: i32,
    dtype: i32,
    before: bool,
}

impl Autocast {
    /// Enables autocast to `kind` on the CPU (`cuda` false) or CUDA.
    pub fn enable(cuda: bool, kind: Kind) -> Result<Self> {
        let device = i32::from(cuda);
        let dtype = scalar_type(kind)?;
        let before = ffi::autocast_set(device, true, dtype)?;
        Ok(Self {
            device,
            dtype,
            before,
        })
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // Restoring a flag cannot fail for a device type that was accepted before.
        let _ = ffi::autocast_set(self.device, self.before, self.dtype);
        let _ = ffi::autocast_clear_cache();
    }
}
