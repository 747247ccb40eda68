//! Losses: from a model's outputs and the labels of a batch to one scalar with history.

use anyhow::Result;
use tch::Tensor;

use crate::data::Batch;
use crate::model::Outputs;

/// A training objective. The result is the mean over the batch; the trainer divides for accumulation (I6), never the loss.
pub trait Loss {
    /// `batch` still holds the label columns. Errors name the labels that do not fit the outputs.
    fn loss(&mut self, outputs: &Outputs, batch: &Batch) -> Result<Tensor>;
    /// Label columns that must not reach `Model::forward` (label smoothing removes `labels` first, spec 3.10).
    fn withheld_columns(&self) -> &[String] {
        &[]
    }
}
