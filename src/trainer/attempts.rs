//! Beginning again after memory ran out (field 82, spec 3.11): what an attempt starts from, and how a failure is known.
//! Differs from 4.34 on purpose: weights, random state and the state of callbacks are restored, moments are new.

use anyhow::{Context, Result};
use serde_json::{Map, Value};
use tch::Tensor;

use super::{Trainer, Training};
use crate::checkpoint::PartState;
use crate::checkpoint::rng::RngState;
use crate::data::Loader;
use crate::error::told;
use crate::torch;

/// What libtorch says when memory runs out.
const OUT_OF_MEMORY: &[&str] = &[
    "CUDA out of memory.",
    "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED.",
    "DefaultCPUAllocator: can't allocate memory",
];

/// Whether an error means that memory ran out.
pub fn is_out_of_memory(error: &anyhow::Error) -> bool {
    let text = told(error);
    OUT_OF_MEMORY.iter().any(|words| text.contains(words))
}

/// What a call of [`Trainer::train`] starts from.
#[derive(Debug)]
pub struct Beginning {
    weights: Vec<Tensor>,
    generators: RngState,
    sampler: Option<Vec<u8>>,
    callbacks: Map<String, Value>,
    scaler: Option<Value>,
}

impl Trainer {
    /// A copy of what training changes.
    pub fn beginning(&self, training: &Training) -> Result<Beginning> {
        let weights = self.parts.model.state_dict().into_iter();
        let scaler = self.parts.scaler.as_ref();
        Ok(Beginning {
            weights: weights
                .map(|(_, tensor)| torch::copy_of(&tensor, tensor.f_kind()?))
                .collect::<Result<_>>()
                .context("keeping the weights, in case memory runs out")?,
            generators: RngState::capture(self.config.device)?,
            sampler: training.loader.sampler_state()?,
            callbacks: self.parts.callbacks.states(),
            scaler: scaler
                .map(|scaler| Ok::<_, anyhow::Error>(scaler.state()?.json))
                .transpose()?,
        })
    }

    /// Everything as it was at the beginning; `loader` will make batches of `batch_size` rows.
    pub fn begin_again(
        &mut self,
        beginning: &Beginning,
        (loader, batch_size): (&mut Loader, usize),
    ) -> Result<()> {
        torch::clear_gradients(&self.parameters)?;
        torch::free_caches(self.config.device)?;
        let own = self.parts.model.state_dict().into_iter();
        tch::no_grad(|| {
            for ((_, mut tensor), kept) in own.zip(&beginning.weights) {
                tensor.f_copy_(kept)?;
            }
            anyhow::Ok(())
        })?;
        beginning.generators.restore(self.config.device)?;
        if let Some(state) = &beginning.sampler {
            loader.restore_sampler(state)?;
        }
        loader.set_batch_size(batch_size)?;
        self.parts.callbacks.load_states(&beginning.callbacks)?;
        if let (Some(scaler), Some(json)) = (&mut self.parts.scaler, &beginning.scaler) {
            scaler.load_state(PartState {
                tensors: Vec::new(),
                json: json.clone(),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::is_out_of_memory;

    #[test]
    fn only_what_libtorch_says_of_memory_counts() {
        let allocator = anyhow!(
            "[enforce fail at alloc_cpu.cpp:128] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."
        );
        assert!(is_out_of_memory(&allocator.context("forward pass")));
        assert!(is_out_of_memory(&anyhow!(
            "CUDA out of memory. Tried to allocate 2.00 GiB"
        )));
        assert!(!is_out_of_memory(&anyhow!("cannot allocate memory")));
    }

    /// The words are those that libtorch of this version really uses.
    #[test]
    fn an_allocation_that_is_too_large_counts() {
        let options = (tch::Kind::Float, tch::Device::Cpu);
        let error = tch::Tensor::f_empty([1 << 60], options).expect_err("no such memory");
        assert!(is_out_of_memory(&error.into()));
    }
}
