//! Cross entropy over classes, for examples or tokens; labels of -100 are left out.

use anyhow::Result;
use tch::{Reduction, Tensor};

use super::Loss;
use super::labels::{IGNORED, check_classes, logits_and_labels};
use crate::data::Batch;
use crate::error::Failure;
use crate::model::Outputs;

/// `CrossEntropyLoss()(logits.view(-1, classes), labels.view(-1))`.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy;

impl Loss for CrossEntropy {
    fn loss(&mut self, outputs: &Outputs, batch: &Batch) -> Result<Tensor> {
        let (logits, labels) = logits_and_labels(outputs, batch)?;
        let num_classes = logits.size().last().copied().unwrap_or(1);
        check_classes(labels, num_classes)?;
        let (rows, labels) = (
            logits.f_reshape([-1, num_classes])?,
            labels.f_reshape([-1])?.f_to_kind(tch::Kind::Int64)?,
        );
        if rows.size()[0] != labels.size()[0] {
            let message = format!(
                "{} labels for {} predictions of {num_classes} classes",
                labels.size()[0],
                rows.size()[0]
            );
            return Err(Failure::data(message).into());
        }
        Ok(rows.f_cross_entropy_loss(&labels, None::<&Tensor>, Reduction::Mean, IGNORED, 0.0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::{CrossEntropy, Loss};
    use crate::data::Batch;
    use crate::model::Outputs;
    use tch::Tensor;

    fn loss(logits: &Tensor, labels: &Tensor) -> anyhow::Result<f64> {
        let outputs = Outputs {
            loss: None,
            fields: vec![("logits".to_owned(), logits.shallow_clone())],
        };
        let batch = Batch {
            columns: vec![("labels".into(), labels.shallow_clone())],
        };
        Ok(CrossEntropy.loss(&outputs, &batch)?.f_double_value(&[])?)
    }

    #[test]
    fn tokens_without_a_tag_do_not_count() {
        let logits = Tensor::from_slice(&[2.0_f64, 0.0, 0.0, 3.0, 1.0, 1.0]).view([1, 3, 2]);
        let expected = ((1.0 + (-2.0_f64).exp()).ln() + (1.0 + (3.0_f64).exp()).ln()) / 2.0;
        let value =
            loss(&logits, &Tensor::from_slice(&[0_i64, 0, -100]).view([1, 3])).expect("a loss");
        assert!((value - expected).abs() < 1e-12, "{value} {expected}");
    }

    #[test]
    fn a_label_that_is_no_class_is_named() {
        let logits = Tensor::from_slice(&[0.0_f32; 6]).view([2, 3]);
        for (labels, wrong) in [
            ([0_i64, 3], 3),
            ([-1, 2], -1),
            ([-100, 7], 7),
            ([-100, -99], -99),
        ] {
            let error = loss(&logits, &Tensor::from_slice(&labels)).expect_err("out of range");
            assert_eq!(
                error.to_string(),
                format!("label {wrong} is out of range: the model has 3 classes, 0 to 2")
            );
        }
        let error = loss(&logits, &Tensor::from_slice(&[0.5_f32, 1.0])).expect_err("floats");
        assert_eq!(
            error.to_string(),
            "the labels are real numbers; a classification needs integers"
        );
        assert!(loss(&logits, &Tensor::from_slice(&[0_i64])).is_err());
    }
}
