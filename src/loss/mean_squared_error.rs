//! Mean squared error, for regression.

use anyhow::Result;
use tch::{Reduction, Tensor};

use super::Loss;
use super::labels::{check_shapes, in_kind, logits_and_labels};
use crate::data::Batch;
use crate::model::Outputs;

/// `MSELoss()(logits, labels)`; with one output both are squeezed first.
#[derive(Clone, Copy, Debug)]
pub struct MeanSquaredError;

impl Loss for MeanSquaredError {
    fn loss(&mut self, outputs: &Outputs, batch: &Batch) -> Result<Tensor> {
        let (logits, labels) = logits_and_labels(outputs, batch)?;
        let labels = in_kind(labels, logits.f_kind()?)?;
        let single = logits.dim() < 2 || logits.size().last() == Some(&1);
        let (logits, labels) = if single {
            (logits.f_squeeze()?, labels.f_squeeze()?)
        } else {
            (logits.shallow_clone(), labels)
        };
        check_shapes(&logits, &labels)?;
        Ok(logits.f_mse_loss(&labels, Reduction::Mean)?)
    }
}

#[cfg(test)]
mod tests {
    use super::{Loss, MeanSquaredError};
    use crate::data::Batch;
    use crate::model::Outputs;
    use tch::Tensor;

    fn loss(logits: Tensor, labels: Tensor) -> anyhow::Result<f64> {
        let outputs = Outputs {
            loss: None,
            fields: vec![("logits".to_owned(), logits)],
        };
        let batch = Batch {
            columns: vec![("labels".into(), labels)],
        };
        Ok(MeanSquaredError
            .loss(&outputs, &batch)?
            .f_double_value(&[])?)
    }

    #[test]
    fn one_output_is_squeezed_and_several_are_not() {
        let column = Tensor::from_slice(&[1.0_f32, 3.0]).view([2, 1]);
        assert_eq!(
            loss(column.shallow_clone(), Tensor::from_slice(&[0.0_f64, 1.0])).expect("a loss"),
            2.5
        );
        assert_eq!(
            loss(column.shallow_clone(), Tensor::from_slice(&[0_i64, 1])).expect("a loss"),
            2.5
        );
        let pair = Tensor::from_slice(&[1.0_f32, 3.0, 0.0, 0.0]).view([2, 2]);
        assert_eq!(
            loss(pair.shallow_clone(), Tensor::zeros_like(&pair)).expect("a loss"),
            2.5
        );
        let error = loss(pair, Tensor::from_slice(&[0.0_f32, 1.0])).expect_err("shapes");
        assert_eq!(
            error.to_string(),
            "the labels have shape [2], but the model's outputs [2, 2]"
        );
    }
}
