//! The loss that the model computed itself.

use anyhow::Result;
use tch::Tensor;

use super::Loss;
use crate::data::Batch;
use crate::error::Failure;
use crate::model::Outputs;

/// Takes `loss` from the outputs.
#[derive(Clone, Copy, Debug)]
pub struct ModelLoss;

impl Loss for ModelLoss {
    fn loss(&mut self, outputs: &Outputs, batch: &Batch) -> Result<Tensor> {
        if let Some(loss) = &outputs.loss {
            return Ok(loss.shallow_clone());
        }
        let names = |names: Vec<&str>| {
            if names.is_empty() {
                "nothing".to_owned()
            } else {
                names.join(", ")
            }
        };
        let returned = names(
            outputs
                .fields
                .iter()
                .map(|(name, _)| name.as_str())
                .collect(),
        );
        let given = names(batch.columns.iter().map(|(name, _)| &**name).collect());
        let message =
            format!("the model did not return a loss, only {returned}; its inputs were {given}");
        Err(Failure::data(message)
            .hint("a model computes its loss when it is given labels, or choose a loss")
            .into())
    }
}

#[cfg(test)]
mod tests {
    use super::{Loss, ModelLoss};
    use crate::data::Batch;
    use crate::model::Outputs;
    use tch::Tensor;

    #[test]
    fn without_a_loss_the_outputs_are_listed() {
        let mut outputs = Outputs {
            loss: None,
            fields: vec![("logits".to_owned(), Tensor::from(1.0))],
        };
        let batch = Batch {
            columns: vec![("input_ids".into(), Tensor::from(1))],
        };
        let error = ModelLoss.loss(&outputs, &batch).expect_err("no loss");
        assert_eq!(
            error.to_string(),
            "the model did not return a loss, only logits; its inputs were input_ids"
        );
        outputs.loss = Some(Tensor::from(2.5));
        assert_eq!(
            ModelLoss
                .loss(&outputs, &batch)
                .expect("a loss")
                .double_value(&[]),
            2.5
        );
    }
}
