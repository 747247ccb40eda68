//! `predict` for programs: all outputs and labels of a pass as whole tensors.

use anyhow::Result;
use tch::Tensor;

use crate::data::Accumulator;
use crate::metric::EvaluationBatch;
use crate::trainer::PredictionSink;

/// What [`Trainer::predict`](super::Trainer::predict) returns.
#[derive(Debug, Default)]
pub struct PredictionOutput {
    /// Outputs by name after the logits processors, rows as first dimension, on the CPU; rows of different length are
    /// padded with -100 in the second dimension. Empty if only the loss was asked for.
    pub predictions: Vec<(String, Tensor)>,
    /// Label columns in the same form; empty if the rows have none.
    pub label_ids: Vec<(String, Tensor)>,
    /// Metrics with their prefix: loss and the metrics' values if there are labels, and the speed.
    pub metrics: Vec<(String, f64)>,
}

/// Gathers a pass.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    outputs: Accumulator,
    labels: Accumulator,
}

impl Gathered {
    /// Everything that was seen, with the pass's metrics.
    pub(super) fn finish(self, metrics: Vec<(String, f64)>) -> Result<PredictionOutput> {
        Ok(PredictionOutput {
            predictions: self.outputs.finish()?,
            label_ids: self.labels.finish()?,
            metrics,
        })
    }
}

impl PredictionSink for Gathered {
    fn batch(&mut self, batch: &EvaluationBatch<'_>) -> Result<()> {
        self.outputs.push(batch.outputs)?;
        self.labels.push(batch.labels)
    }
}
