//! A metric over a whole pass, as `compute_metrics` is in the reference: for programs that would rather write one function
//! than accumulate. It holds all outputs and labels of the pass in memory.

use anyhow::Result;
use tch::Tensor;

use super::{EvaluationBatch, Metric};
use crate::data::Accumulator;

/// `EvalPrediction`: a pass as whole tensors, rows as first dimension, on the CPU; rows of different length are padded with
/// -100 in the second dimension.
#[derive(Debug)]
pub struct EvalPrediction {
    /// Outputs without the loss, after the logits processors.
    pub predictions: Vec<(String, Tensor)>,
    /// Label columns.
    pub label_ids: Vec<(String, Tensor)>,
}

/// The outputs and labels of a pass on their way to an [`EvalPrediction`].
#[derive(Debug, Default)]
pub struct Gathered {
    outputs: Accumulator,
    labels: Accumulator,
}

impl Gathered {
    /// One more batch.
    pub fn push(&mut self, batch: &EvaluationBatch<'_>) -> Result<()> {
        self.outputs.push(batch.outputs)?;
        self.labels.push(batch.labels)
    }

    /// Moves what was seen to main memory.
    pub fn to_host(&mut self) -> Result<()> {
        self.outputs.to_host()?;
        self.labels.to_host()
    }

    /// Everything that was seen.
    pub fn finish(self) -> Result<EvalPrediction> {
        Ok(EvalPrediction {
            predictions: self.outputs.finish()?,
            label_ids: self.labels.finish()?,
        })
    }
}

/// Calls a function once a pass.
pub struct Whole<F> {
    name: String,
    compute: F,
    seen: Gathered,
}

impl<F> std::fmt::Debug for Whole<F> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Whole").field(&self.name).finish()
    }
}

impl<F: FnMut(&EvalPrediction) -> Result<Vec<(String, f64)>>> Whole<F> {
    /// `name` is for messages; the values have names of their own.
    pub fn new(name: &str, compute: F) -> Self {
        Self {
            name: name.to_owned(),
            compute,
            seen: Gathered::default(),
        }
    }
}

impl<F: FnMut(&EvalPrediction) -> Result<Vec<(String, f64)>>> Metric for Whole<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&mut self, _dataset: &str) -> Result<()> {
        self.seen = Gathered::default();
        Ok(())
    }

    fn update(&mut self, batch: &EvaluationBatch<'_>) -> Result<()> {
        self.seen.push(batch)
    }

    fn to_host(&mut self) -> Result<()> {
        self.seen.to_host()
    }

    fn compute(&mut self) -> Result<Vec<(String, f64)>> {
        let prediction = std::mem::take(&mut self.seen).finish()?;
        (self.compute)(&prediction)
    }
}
