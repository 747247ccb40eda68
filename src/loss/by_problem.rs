//! The loss of `BertForSequenceClassification` and its like: chosen by `problem_type`, or by the first labels.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::labels::logits_and_labels;
use super::{BinaryCrossEntropy, CrossEntropy, Loss, MeanSquaredError};
use crate::data::Batch;
use crate::model::{Outputs, ProblemType};

/// One of three losses.
#[derive(Clone, Copy, Debug)]
pub struct ByProblem {
    problem: Option<ProblemType>,
}

impl ByProblem {
    /// `None`: decided at the first batch and kept.
    pub fn new(problem: Option<ProblemType>) -> Self {
        Self { problem }
    }
}

impl Loss for ByProblem {
    fn loss(&mut self, outputs: &Outputs, batch: &Batch) -> Result<Tensor> {
        let (logits, labels) = logits_and_labels(outputs, batch)?;
        let num_labels = logits.size().last().copied().unwrap_or(1) as usize;
        let integers = matches!(labels.f_kind()?, Kind::Int64 | Kind::Int);
        match *self
            .problem
            .get_or_insert(ProblemType::infer(num_labels, integers))
        {
            ProblemType::Regression => MeanSquaredError.loss(outputs, batch),
            ProblemType::SingleLabelClassification => CrossEntropy.loss(outputs, batch),
            ProblemType::MultiLabelClassification => BinaryCrossEntropy.loss(outputs, batch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ByProblem;
    use crate::data::Batch;
    use crate::loss::Loss;
    use crate::model::{Outputs, ProblemType};
    use tch::{Device, Kind, Tensor};

    #[test]
    fn the_first_labels_decide_and_the_choice_stays() {
        let cases = [
            (1, Tensor::from_slice(&[1_i64, 0]), ProblemType::Regression),
            (
                3,
                Tensor::from_slice(&[1_i64, 0]),
                ProblemType::SingleLabelClassification,
            ),
            (
                3,
                Tensor::from_slice(&[0.0_f32; 6]).view([2, 3]),
                ProblemType::MultiLabelClassification,
            ),
        ];
        for (outputs, labels, expected) in cases {
            let logits = Tensor::zeros([2, outputs], (Kind::Float, Device::Cpu));
            let outputs = Outputs {
                loss: None,
                fields: vec![("logits".to_owned(), logits)],
            };
            let mut loss = ByProblem::new(None);
            let _ = loss
                .loss(
                    &outputs,
                    &Batch {
                        columns: vec![("labels".into(), labels)],
                    },
                )
                .expect("a loss");
            assert_eq!(loss.problem, Some(expected));
        }
    }
}
