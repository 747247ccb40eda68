//! Prediction: a pass whose outputs go to a sink; not logged, `on_predict` at its end (spec 3.8).

use anyhow::Result;

use super::evaluate::PassOptions;
use super::{EvaluationSet, Metrics, Trainer};
use crate::callback::Event;
use crate::metric::EvaluationBatch;

/// Receives the outputs of a prediction pass batch by batch, so that nothing need be held.
pub trait PredictionSink {
    /// One batch, after the logits processors.
    fn batch(&mut self, batch: &EvaluationBatch<'_>) -> Result<()>;
    /// Moves what it keeps of the outputs to main memory.
    fn to_host(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What a prediction pass returns besides what the sink got.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// Metrics with the prefix; loss and user metrics only if there were labels.
    pub metrics: Metrics,
}

impl Trainer {
    /// Predicts over a set; `None`: a signal ended it. With `prediction_loss_only` there are no predictions, and the sink gets nothing.
    pub fn predict(
        &mut self,
        set: &mut EvaluationSet,
        prefix: &str,
        sink: &mut dyn PredictionSink,
    ) -> Result<Option<Predictions>> {
        let keeps_outputs = !self.config.prediction_loss_only;
        let loss_only = !keeps_outputs || self.parts.metrics.is_empty();
        let options = PassOptions {
            loss_only,
            sink: if keeps_outputs { Some(sink) } else { None },
        };
        self.begin_memory("test")?;
        let Some(mut metrics) = self.pass(set, prefix, options)? else {
            return Ok(None);
        };
        self.fire(Event::Predict(&metrics.0))?;
        self.memory.end("test", &mut metrics.0)?;
        Ok(Some(Predictions { metrics }))
    }
}
