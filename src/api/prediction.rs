//! `predict` for programs: all outputs and labels of a pass as whole tensors.

use anyhow::Result;
use tch::Tensor;

use crate::metric::{EvalPrediction, EvaluationBatch, Gathered};
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

impl PredictionSink for Gathered {
    fn batch(&mut self, batch: &EvaluationBatch<'_>) -> Result<()> {
        self.push(batch)
    }

    fn to_host(&mut self) -> Result<()> {
        Self::to_host(self)
    }
}

impl PredictionOutput {
    /// What a pass has gathered, and its metrics.
    pub(super) fn of(seen: Gathered, metrics: Vec<(String, f64)>) -> Result<Self> {
        let EvalPrediction {
            predictions,
            label_ids,
        } = seen.finish()?;
        Ok(Self {
            predictions,
            label_ids,
            metrics,
        })
    }
}
