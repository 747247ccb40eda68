//! GPUs: whether libtorch can use one, and what only they have. The CUDA half of libtorch is loaded by [`load_cuda`], so a
//! run on the CPU needs none of its libraries.

use anyhow::{Context, Result, anyhow, bail};
use tch::{Device, Tensor};

use super::addresses;
use super::bridge::ffi;
pub use super::bridge::ffi::DeviceMemory;
use crate::error::without_frames;

/// Loads the CUDA half of libtorch, which must happen before anything asks for a GPU. False: this libtorch has none. An
/// error names the library that is missing.
pub fn load_cuda() -> Result<bool> {
    ffi::cuda_load().map_err(|error| anyhow!("{}", without_frames(error.what())))
}

/// The index that C++ knows a device by; the CPU has none and is negative.
pub(super) fn index_of(device: Device) -> Result<i32> {
    match device {
        Device::Cpu => Ok(-1),
        Device::Cuda(index) => Ok(i32::try_from(index)?),
        other => bail!("{other:?} is not a device that this program uses"),
    }
}

/// Compute capability of a GPU as one number: 80 is 8.0.
pub fn cuda_capability(index: usize) -> Result<i32> {
    Ok(ffi::cuda_capability(i32::try_from(index)?)?)
}

/// `torch.cuda.get_rng_state(index)`.
pub fn cuda_generator_state(index: usize) -> Result<Vec<u8>> {
    Ok(ffi::cuda_generator_state(i32::try_from(index)?)?)
}

/// `torch.cuda.set_rng_state(state, index)`.
pub fn set_cuda_generator_state(index: usize, state: &[u8]) -> Result<()> {
    ffi::set_cuda_generator_state(i32::try_from(index)?, state)
        .context("the generator state is not one of a GPU")
}

/// Bytes that libtorch has allocated on a GPU, now and at most.
pub fn cuda_memory(index: usize) -> Result<DeviceMemory> {
    Ok(ffi::cuda_memory(i32::try_from(index)?)?)
}

/// Begins to look for a new peak.
pub fn cuda_forget_peak(index: usize) -> Result<()> {
    Ok(ffi::cuda_forget_peak(i32::try_from(index)?)?)
}

/// Moves tensors in place, as `torch.nn.Module.to(device)`: every handle to them sees it.
pub fn move_tensors(tensors: &[Tensor], device: Device) -> Result<()> {
    Ok(ffi::move_tensors(&addresses(tensors), index_of(device)?)?)
}
