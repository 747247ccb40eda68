//! The generators' state as a file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use tch::{Device, Tensor};

use super::{PartState, bytes, foreign, layout, load};
use crate::error::Failure;
use crate::torch;

const CPU: &str = "cpu";
const CUDA_PREFIX: &str = "cuda.";

/// States of the default generators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RngState {
    /// The CPU's, as `torch.get_rng_state()`.
    pub cpu: Vec<u8>,
    /// One for each CUDA device, in order.
    pub cuda: Vec<Vec<u8>>,
}

impl RngState {
    /// The state now, of what a run on `device` draws from: the CPU's, and that of its GPU.
    pub fn capture(device: Device) -> Result<Self> {
        Ok(Self {
            cpu: torch::default_generator_state()?,
            cuda: match device {
                Device::Cuda(index) => vec![torch::cuda_generator_state(index)?],
                _ => Vec::new(),
            },
        })
    }

    /// Continues from this state on `device`. States of CUDA devices do not matter to a run on the CPU, as in the reference;
    /// a process of several takes the one of its device.
    pub fn restore(&self, device: Device) -> Result<()> {
        if let Device::Cuda(index) = device {
            let state = match &self.cuda[..] {
                [only] => Some(only),
                states => states.get(index),
            };
            match state {
                Some(state) => torch::set_cuda_generator_state(index, state)
                    .with_context(|| format!("restoring the generator of GPU {index}"))?,
                None => tracing::warn!("the checkpoint has no generator state of GPU {index}"),
            }
        } else if !self.cuda.is_empty() {
            tracing::info!(
                "the generator states of {} CUDA devices are not used by a run on the CPU",
                self.cuda.len()
            );
        }
        torch::set_default_generator_state(&self.cpu).context("restoring the generator of the CPU")
    }

    /// As tensors, for `rng_state.safetensors`.
    pub fn into_part(self) -> Result<PartState> {
        let mut tensors = vec![(CPU.to_owned(), Tensor::f_from_slice(&self.cpu)?)];
        for (device, state) in self.cuda.iter().enumerate() {
            tensors.push((
                format!("{CUDA_PREFIX}{device}"),
                Tensor::f_from_slice(state)?,
            ));
        }
        Ok(PartState {
            tensors,
            json: serde_json::Value::Null,
        })
    }

    /// From the tensors of [`Self::into_part`].
    pub fn from_part(part: PartState) -> Result<Self> {
        let mut tensors: BTreeMap<_, _> = part.tensors.into_iter().collect();
        let mut take = |name: &str| -> Result<Option<Vec<u8>>> {
            let bytes = tensors
                .remove(name)
                .map(|tensor| bytes::to_vec(&tensor))
                .transpose();
            bytes.map_err(|error| {
                Failure::data(format!(
                    "the generator state {name:?} is damaged: {error:#}"
                ))
                .into()
            })
        };
        let cpu = take(CPU)?
            .ok_or_else(|| Failure::data("the generator states lack the one of the CPU"))?;
        let mut cuda = Vec::new();
        while let Some(state) = take(&format!("{CUDA_PREFIX}{}", cuda.len()))? {
            cuda.push(state);
        }
        match tensors.keys().next() {
            Some(name) => {
                Err(Failure::data(format!("the generator state {name:?} is unknown")).into())
            }
            None => Ok(Self { cpu, cuda }),
        }
    }

    /// Reads the state of a checkpoint, ours or the reference's. `None`: the checkpoint has none.
    pub fn load(dir: &Path) -> Result<Option<Self>> {
        let ours = |path: &Path| load::read_part(path).and_then(Self::from_part);
        let ours = |path: &Path| ours(path).with_context(|| format!("reading {}", path.display()));
        load::either(
            dir,
            (layout::RNG_STATE, ours),
            (layout::PICKLED_RNG_STATE, foreign::read_rng),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::save::Staging;

    #[test]
    fn states_survive_the_file_and_continue_the_stream() {
        // Other tests draw from the default generator too, so the stream itself is compared on a private one.
        let folder = tempfile::tempdir().expect("a folder");
        let mut generator = torch::Generator::seeded(11).expect("a generator");
        generator.random_int64().expect("a draw");
        let saved = RngState {
            cpu: generator.state().expect("a state"),
            cuda: vec![vec![1, 2, 3], vec![4]],
        };
        let mut staging = Staging::begin(folder.path(), 3).expect("begun");
        let part = saved.clone().into_part().expect("a part");
        staging.write_part(layout::RNG_STATE, &part).expect("saved");
        let dir = staging.commit().expect("committed");
        let loaded = RngState::load(&dir).expect("readable").expect("there");
        assert_eq!(loaded, saved);
        let next = generator.random_int64().expect("a draw");
        let mut other = torch::Generator::seeded(0).expect("a generator");
        other.set_state(&loaded.cpu).expect("it fits");
        assert_eq!(other.random_int64().expect("a draw"), next);
        assert_eq!(
            RngState::capture(Device::Cpu).expect("a state").cpu.len(),
            5056
        );
    }

    #[test]
    fn a_checkpoint_may_have_none() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(RngState::load(folder.path()).expect("no error"), None);
    }
}
