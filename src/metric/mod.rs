//! Metrics: from the batches of an evaluation pass to named numbers.

use anyhow::Result;
use tch::Tensor;

use crate::data::Batch;
use crate::error::Failure;

mod accuracy;
mod whole;

pub use accuracy::Accuracy;
pub use whole::{EvalPrediction, Gathered, Whole};

/// What helps where a metric cannot be computed in parts.
const PARTIAL_HINT: &str = "use a metric that implements partial and merge";

/// What evaluation hands over for one batch. Outputs have been through the logits processor.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationBatch<'a> {
    /// Model outputs without the loss, in order.
    pub outputs: &'a [(String, Tensor)],
    /// Label columns, in the order of the model's label names.
    pub labels: &'a [(String, Tensor)],
    /// The main input if `include_inputs_for_metrics` asks for it, else nothing; the whole batch for predictions.
    pub inputs: &'a Batch,
    /// Name of the evaluation set, empty if there is only one.
    pub dataset: &'a str,
    /// Number of examples.
    pub size: usize,
}

impl<'a> EvaluationBatch<'a> {
    /// The output `logits`, or else the first one.
    pub fn logits(&self) -> Option<&'a Tensor> {
        let named = self.outputs.iter().find(|(name, _)| name == "logits");
        named.or(self.outputs.first()).map(|(_, tensor)| tensor)
    }
}

/// Accumulates over an evaluation pass. Streaming: nothing is kept unless the metric keeps it.
pub trait Metric {
    /// Name for messages and the summary.
    fn name(&self) -> &str;
    /// Begins a pass over `dataset`.
    fn reset(&mut self, dataset: &str) -> Result<()>;
    /// One batch.
    fn update(&mut self, batch: &EvaluationBatch<'_>) -> Result<()>;
    /// The numbers, in the order they are to be shown; names without the `eval_` prefix.
    fn compute(&mut self) -> Result<Vec<(String, f64)>>;
    /// What this process has seen of the pass, for [`Metric::merge`] of another one.
    fn partial(&mut self) -> Result<Vec<u8>> {
        let text = format!("the metric {} has no partial result", self.name());
        Err(Failure::usage(text).hint(PARTIAL_HINT).into())
    }
    /// Adds what another process has seen: `compute` then speaks of both.
    fn merge(&mut self, partial: &[u8]) -> Result<()> {
        let _ = partial;
        let text = format!("the metric {} cannot be merged", self.name());
        Err(Failure::usage(text).hint(PARTIAL_HINT).into())
    }
    /// Moves what it keeps of the outputs from their device to main memory (`eval_accumulation_steps`).
    fn to_host(&mut self) -> Result<()> {
        Ok(())
    }
    /// Bytes of tensors that it keeps until `compute`, if they grow with the rows.
    fn held_bytes(&self) -> u64 {
        0
    }
    /// The names that `compute` will give, if they are certain before a pass: a run that waits for another one is refused
    /// before its first step.
    fn names(&self) -> Option<Vec<String>> {
        None
    }
}

/// Changes outputs before metrics and predictions see them (`preprocess_logits_for_metrics`); never the loss.
pub trait LogitsProcessor {
    /// Name for messages and the summary.
    fn name(&self) -> &str;
    /// The outputs that replace `batch.outputs`.
    fn preprocess(&mut self, batch: &EvaluationBatch<'_>) -> Result<Vec<(String, Tensor)>>;
}
