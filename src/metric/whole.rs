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

/// Calls a function once a pass.
pub struct Whole<F> {
    name: String,
    compute: F,
    outputs: Accumulator,
    labels: Accumulator,
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
            outputs: Accumulator::new(),
            labels: Accumulator::new(),
        }
    }
}

impl<F: FnMut(&EvalPrediction) -> Result<Vec<(String, f64)>>> Metric for Whole<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&mut self, _dataset: &str) -> Result<()> {
        self.outputs = Accumulator::new();
        self.labels = Accumulator::new();
        Ok(())
    }

    fn update(&mut self, batch: &EvaluationBatch<'_>) -> Result<()> {
        self.outputs.push(batch.outputs)?;
        self.labels.push(batch.labels)
    }

    fn compute(&mut self) -> Result<Vec<(String, f64)>> {
        let prediction = EvalPrediction {
            predictions: std::mem::take(&mut self.outputs).finish()?,
            label_ids: std::mem::take(&mut self.labels).finish()?,
        };
        (self.compute)(&prediction)
    }
}
