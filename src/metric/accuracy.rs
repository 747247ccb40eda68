//! The built-in metric of classification: the share of labels that are predicted, without positions labelled -100.

use anyhow::{Result, bail, ensure};
use tch::{Kind, Tensor};

use super::{EvaluationBatch, Metric};
use crate::error::Failure;

/// A partial result that another metric, or another version, has made.
const NOT_OURS: &str = "a partial result that is not one of the metric accuracy";

/// Accuracy over logits `(.., classes)` with labels `(..)`, over class ids shaped like the labels, or, with
/// `multi_label`, over independent logits against indicators (every indicator counts).
#[derive(Debug, Default)]
pub struct Accuracy {
    multi_label: bool,
    correct: i64,
    counted: i64,
}

impl Accuracy {
    /// For one label a row or token.
    pub fn new() -> Self {
        Self::default()
    }

    /// For independent labels: a logit above 0 predicts 1.
    pub fn multi_label() -> Self {
        Self {
            multi_label: true,
            ..Self::default()
        }
    }
}

impl Metric for Accuracy {
    fn name(&self) -> &str {
        "accuracy"
    }

    fn reset(&mut self, _dataset: &str) -> Result<()> {
        (self.correct, self.counted) = (0, 0);
        Ok(())
    }

    fn update(&mut self, batch: &EvaluationBatch<'_>) -> Result<()> {
        let (Some(logits), Some((name, labels))) = (batch.logits(), batch.labels.first()) else {
            return Ok(());
        };
        let predicted = match (self.multi_label, logits.dim() == labels.dim() + 1) {
            (true, _) => logits.f_gt(0)?,
            (false, true) => logits.f_argmax(-1, false)?,
            (false, false) => logits.shallow_clone(),
        };
        ensure!(
            predicted.size() == labels.size(),
            Failure::data(format!(
                "outputs {:?} do not fit the labels {name} {:?}",
                logits.size(),
                labels.size()
            ))
        );
        let counted = labels.f_ne(-100)?;
        let correct = predicted.f_eq_tensor(labels)?.f_logical_and(&counted)?;
        self.counted += count(&counted)?;
        self.correct += count(&correct)?;
        Ok(())
    }

    fn compute(&mut self) -> Result<Vec<(String, f64)>> {
        let accuracy = if self.counted == 0 {
            f64::NAN
        } else {
            self.correct as f64 / self.counted as f64
        };
        Ok(vec![("accuracy".to_owned(), accuracy)])
    }

    fn partial(&mut self) -> Result<Vec<u8>> {
        Ok([self.correct, self.counted].map(i64::to_le_bytes).concat())
    }

    fn merge(&mut self, partial: &[u8]) -> Result<()> {
        let Some((correct, counted)) = partial.split_first_chunk() else {
            bail!(NOT_OURS);
        };
        let Ok(counted) = counted.try_into() else {
            bail!(NOT_OURS);
        };
        self.correct += i64::from_le_bytes(*correct);
        self.counted += i64::from_le_bytes(counted);
        Ok(())
    }

    fn names(&self) -> Option<Vec<String>> {
        Some(vec!["accuracy".to_owned()])
    }
}

fn count(mask: &Tensor) -> Result<i64> {
    Ok(mask.f_sum(Kind::Int64)?.f_int64_value(&[])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Batch;

    fn accuracy(mut metric: Accuracy, batches: &[(Tensor, Tensor)]) -> f64 {
        metric.reset("").expect("a pass begins");
        for (logits, labels) in batches {
            let outputs = [("logits".to_owned(), logits.shallow_clone())];
            let labels = [("labels".to_owned(), labels.shallow_clone())];
            let inputs = Batch::default();
            let batch = EvaluationBatch {
                outputs: &outputs,
                labels: &labels,
                inputs: &inputs,
                dataset: "",
                size: 1,
            };
            metric.update(&batch).expect("a batch");
        }
        metric.compute().expect("a number")[0].1
    }

    #[test]
    fn it_counts_labels_not_positions() {
        let logits = Tensor::from_slice2(&[[2.0, 1.0], [0.0, 1.0], [0.0, 3.0]]);
        let labels = Tensor::from_slice(&[0_i64, 0, 1]);
        assert_eq!(
            accuracy(Accuracy::new(), &[(logits.shallow_clone(), labels)]),
            2.0 / 3.0
        );
        let masked = Tensor::from_slice(&[0_i64, -100, 1]);
        assert_eq!(accuracy(Accuracy::new(), &[(logits, masked)]), 1.0);
        let ids = Tensor::from_slice(&[1_i64, 0]);
        assert_eq!(
            accuracy(Accuracy::new(), &[(ids, Tensor::from_slice(&[1_i64, 1]))]),
            0.5
        );
        let independent = Tensor::from_slice2(&[[2.0, -1.0], [-3.0, 1.0]]);
        let indicators = Tensor::from_slice2(&[[1.0, 0.0], [1.0, 1.0]]);
        assert_eq!(
            accuracy(Accuracy::multi_label(), &[(independent, indicators)]),
            0.75
        );
        assert!(accuracy(Accuracy::new(), &[]).is_nan());
    }
}
