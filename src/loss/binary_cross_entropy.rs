//! Binary cross entropy of each class, for several labels at once.

use anyhow::Result;
use tch::{Reduction, Tensor};

use super::Loss;
use super::labels::{check_shapes, in_kind, logits_and_labels};
use crate::data::Batch;
use crate::model::Outputs;

/// `BCEWithLogitsLoss()(logits, labels)`.
#[derive(Clone, Copy, Debug)]
pub struct BinaryCrossEntropy;

impl Loss for BinaryCrossEntropy {
    fn loss(&mut self, outputs: &Outputs, batch: &Batch) -> Result<Tensor> {
        let (logits, labels) = logits_and_labels(outputs, batch)?;
        // The reference refuses integers here; as numbers they mean the same.
        let labels = if labels.is_floating_point() {
            labels.shallow_clone()
        } else {
            in_kind(labels, logits.f_kind()?)?
        };
        check_shapes(logits, &labels)?;
        Ok(logits.f_binary_cross_entropy_with_logits(
            &labels,
            None::<&Tensor>,
            None::<&Tensor>,
            Reduction::Mean,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::{BinaryCrossEntropy, Loss};
    use crate::data::Batch;
    use crate::model::Outputs;
    use tch::Tensor;

    #[test]
    fn every_class_counts_alike() {
        let logits = Tensor::from_slice(&[0.0_f64, 2.0]).view([1, 2]);
        let expected = (std::f64::consts::LN_2 + (1.0 + (-2.0_f64).exp()).ln()) / 2.0;
        for labels in [
            Tensor::from_slice(&[0.0_f64, 1.0]),
            Tensor::from_slice(&[0_i64, 1]),
        ] {
            let outputs = Outputs {
                loss: None,
                fields: vec![("logits".to_owned(), logits.shallow_clone())],
            };
            let batch = Batch {
                columns: vec![("labels".into(), labels.view([1, 2]))],
            };
            let value = BinaryCrossEntropy
                .loss(&outputs, &batch)
                .expect("a loss")
                .double_value(&[]);
            assert!((value - expected).abs() < 1e-12, "{value} {expected}");
        }
    }
}
