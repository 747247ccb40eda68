//! The `batch` resource: the outputs, labels and inputs of one batch, as handles that share the host's tensors.

use tch::Tensor;
use wasmtime::component::Resource;

use super::bindings::trainer::host::data;
use super::fault::HostError;
use super::state::State;
use super::tensor;
use crate::metric::EvaluationBatch;

/// Marks the `batch` resource; there is one per call, and a borrow cannot outlive it.
#[derive(Debug)]
pub enum Handle {}

type Named = Vec<(String, Tensor)>;

/// What the current call shows of a batch.
#[derive(Debug)]
pub(super) struct Batch {
    pub outputs: Named,
    pub labels: Named,
    pub inputs: Named,
    pub dataset: String,
    pub size: u64,
}

impl Batch {
    /// Shares the tensors of a batch; nothing is copied.
    pub(super) fn of(batch: &EvaluationBatch<'_>) -> Self {
        Self {
            outputs: share(batch.outputs),
            labels: share(batch.labels),
            inputs: share_columns(batch.inputs),
            dataset: batch.dataset.to_owned(),
            size: batch.size as u64,
        }
    }
}

pub(super) fn share(tensors: &[(String, Tensor)]) -> Named {
    tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
        .collect()
}

/// The same for the columns of a collated batch.
pub(super) fn share_columns(batch: &crate::data::Batch) -> Named {
    let columns = batch.columns.iter();
    columns
        .map(|(name, tensor)| (name.to_string(), tensor.shallow_clone()))
        .collect()
}

fn names(tensors: &Named) -> Vec<String> {
    tensors.iter().map(|(name, _)| name.clone()).collect()
}

impl State {
    fn batch(&self) -> wasmtime::Result<&Batch> {
        self.batch
            .as_ref()
            .ok_or_else(|| wasmtime::Error::msg("no batch belongs to this call"))
    }

    fn lend(
        &mut self,
        part: fn(&Batch) -> &Named,
        name: &str,
    ) -> Result<Option<Resource<tensor::Handle>>, HostError> {
        let batch = self
            .batch
            .as_ref()
            .ok_or_else(|| HostError::stale("no batch belongs to this call"))?;
        let found = part(batch).iter().find(|(known, _)| known == name);
        found
            .map(|(_, tensor)| self.tensors.lend(tensor))
            .transpose()
    }
}

impl data::Host for State {}

impl data::HostBatch for State {
    fn outputs(&mut self, _: Resource<Handle>) -> wasmtime::Result<Vec<String>> {
        Ok(names(&self.batch()?.outputs))
    }

    fn output(
        &mut self,
        _: Resource<Handle>,
        name: String,
    ) -> Result<Option<Resource<tensor::Handle>>, HostError> {
        self.lend(|batch| &batch.outputs, &name)
    }

    fn labels(&mut self, _: Resource<Handle>) -> wasmtime::Result<Vec<String>> {
        Ok(names(&self.batch()?.labels))
    }

    fn label(
        &mut self,
        _: Resource<Handle>,
        name: String,
    ) -> Result<Option<Resource<tensor::Handle>>, HostError> {
        self.lend(|batch| &batch.labels, &name)
    }

    fn inputs(&mut self, _: Resource<Handle>) -> wasmtime::Result<Vec<String>> {
        Ok(names(&self.batch()?.inputs))
    }

    fn input(
        &mut self,
        _: Resource<Handle>,
        name: String,
    ) -> Result<Option<Resource<tensor::Handle>>, HostError> {
        self.lend(|batch| &batch.inputs, &name)
    }

    fn dataset(&mut self, _: Resource<Handle>) -> wasmtime::Result<String> {
        Ok(self.batch()?.dataset.clone())
    }

    fn size(&mut self, _: Resource<Handle>) -> wasmtime::Result<u64> {
        Ok(self.batch()?.size)
    }

    fn drop(&mut self, _: Resource<Handle>) -> wasmtime::Result<()> {
        Ok(())
    }
}
