//! The generators' state as a file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tch::Tensor;

use super::save::Staging;
use super::{bytes, foreign, layout, load};
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
    /// The state now. Training runs on the CPU, so its generator is the only one that anything draws from.
    pub fn capture() -> Result<Self> {
        Ok(Self { cpu: torch::default_generator_state()?, cuda: Vec::new() })
    }

    /// Continues from this state. States of CUDA devices do not matter to a run on the CPU, as in the reference.
    pub fn restore(&self) -> Result<()> {
        if !self.cuda.is_empty() {
            tracing::info!("the generator states of {} CUDA devices are not used by a run on the CPU", self.cuda.len());
        }
        torch::set_default_generator_state(&self.cpu).context("restoring the generator of the CPU")
    }

    /// Writes `rng_state.safetensors`.
    pub fn save(&self, staging: &mut Staging) -> Result<()> {
        let mut tensors = vec![(CPU.to_owned(), Tensor::f_from_slice(&self.cpu)?)];
        for (device, state) in self.cuda.iter().enumerate() {
            tensors.push((format!("{CUDA_PREFIX}{device}"), Tensor::f_from_slice(state)?));
        }
        staging.write_tensors(layout::RNG_STATE, &tensors, &BTreeMap::new())
    }

    /// Reads the state of a checkpoint, ours or the reference's. `None`: the checkpoint has none.
    pub fn load(dir: &Path) -> Result<Option<Self>> {
        load::either(dir, (layout::RNG_STATE, read), (layout::PICKLED_RNG_STATE, foreign::read_rng))
    }
}

fn read(path: &Path) -> Result<RngState> {
    let mut tensors: BTreeMap<_, _> = load::read_tensors(path)?.tensors.into_iter().collect();
    let mut parse = || -> Result<RngState> {
        let cpu = bytes::to_vec(&tensors.remove(CPU).context("it has no tensor \"cpu\"")?).context("tensor \"cpu\"")?;
        let mut cuda = Vec::new();
        while let Some(state) = tensors.remove(&format!("{CUDA_PREFIX}{}", cuda.len())) {
            cuda.push(bytes::to_vec(&state).with_context(|| format!("tensor \"cuda.{}\"", cuda.len()))?);
        }
        ensure!(tensors.is_empty(), "unknown tensors {:?}", tensors.keys());
        Ok(RngState { cpu, cuda })
    };
    parse().map_err(|error| Failure::data(format!("{} holds no generator states: {error:#}", path.display())).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive_the_file_and_continue_the_stream() {
        // Other tests draw from the default generator too, so the stream itself is compared on a private one.
        let folder = tempfile::tempdir().expect("a folder");
        let mut generator = torch::Generator::seeded(11).expect("a generator");
        generator.random_int64().expect("a draw");
        let saved = RngState { cpu: generator.state().expect("a state"), cuda: vec![vec![1, 2, 3], vec![4]] };
        let mut staging = Staging::begin(folder.path(), 3).expect("begun");
        saved.save(&mut staging).expect("saved");
        let dir = staging.commit().expect("committed");
        let loaded = RngState::load(&dir).expect("readable").expect("there");
        assert_eq!(loaded, saved);
        let next = generator.random_int64().expect("a draw");
        let mut other = torch::Generator::seeded(0).expect("a generator");
        other.set_state(&loaded.cpu).expect("it fits");
        assert_eq!(other.random_int64().expect("a draw"), next);
        assert_eq!(RngState::capture().expect("a state").cpu.len(), 5056);
    }

    #[test]
    fn a_checkpoint_may_have_none() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(RngState::load(folder.path()).expect("no error"), None);
    }
}
