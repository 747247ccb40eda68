//! Label smoothing: part of the weight goes to all classes alike (spec 3.10). Computed from `labels` that the model does
//! not see, operation for operation as `LabelSmoother` of the reference.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::Loss;
use super::labels::{COLUMN, IGNORED, check_classes, logits_and_labels};
use crate::data::Batch;
use crate::error::Failure;
use crate::model::Outputs;

/// `(1 - e) * cross entropy + e * mean over the classes`, both over the labels that count.
#[derive(Clone, Debug)]
pub struct LabelSmoothing {
    epsilon: f64,
    shift_labels: bool,
    withheld: [String; 1],
}

impl LabelSmoothing {
    /// `shift_labels`: output i predicts label i + 1.
    pub fn new(epsilon: f64, shift_labels: bool) -> Self {
        Self {
            epsilon,
            shift_labels,
            withheld: [COLUMN.to_owned()],
        }
    }
}

impl Loss for LabelSmoothing {
    fn loss(&mut self, outputs: &Outputs, batch: &Batch) -> Result<Tensor> {
        let (logits, labels) = logits_and_labels(outputs, batch)?;
        check_classes(labels, logits.size().last().copied().unwrap_or(1))?;
        if logits.size().split_last().map(|(_, rows)| rows.to_vec()) != Some(labels.size()) {
            let message = format!(
                "labels of shape {:?} for outputs of shape {:?}",
                labels.size(),
                logits.size()
            );
            return Err(Failure::data(message).into());
        }
        let labels = labels.f_to_kind(Kind::Int64)?;
        if self.shift_labels {
            smooth(&but_last(logits)?, &but_first(&labels)?, self.epsilon)
        } else {
            smooth(logits, &labels, self.epsilon)
        }
    }

    fn withheld_columns(&self) -> &[String] {
        &self.withheld
    }
}

/// `logits[..., :-1, :]`
fn but_last(logits: &Tensor) -> Result<Tensor> {
    let length = logits.size().iter().rev().nth(1).copied().unwrap_or(0);
    Ok(logits.f_narrow(-2, 0, length - 1)?.f_contiguous()?)
}

/// `labels[..., 1:]`
fn but_first(labels: &Tensor) -> Result<Tensor> {
    let length = labels.size().last().copied().unwrap_or(0);
    Ok(labels.f_narrow(-1, 1, length - 1)?.f_contiguous()?)
}

fn smooth(logits: &Tensor, labels: &Tensor, epsilon: f64) -> Result<Tensor> {
    let log_probabilities = logits.f_log_softmax(-1, None)?.f_neg()?;
    let num_classes = log_probabilities.size().last().copied().unwrap_or(1);
    let labels = labels.f_unsqueeze(-1)?;
    let ignored = labels.f_eq(IGNORED)?;
    let mut nll = log_probabilities.f_gather(-1, &labels.f_clamp_min(0)?, false)?;
    // The inner sum in float32, also for half and double precision.
    let mut uniform =
        log_probabilities.f_sum_dim_intlist([-1_i64].as_slice(), true, Kind::Float)?;
    let nll = nll.f_masked_fill_(&ignored, 0.0)?;
    let uniform = uniform.f_masked_fill_(&ignored, 0.0)?;
    let active = ignored
        .f_to_kind(Kind::Int64)?
        .f_sum(None)?
        .f_rsub_scalar(ignored.numel() as i64)?;
    let nll = nll.f_sum(None)?.f_div(&active)?;
    let uniform = uniform
        .f_sum(None)?
        .f_div(&active.f_mul_scalar(num_classes)?)?;
    Ok(nll
        .f_mul_scalar(1.0 - epsilon)?
        .f_add(&uniform.f_mul_scalar(epsilon)?)?)
}

#[cfg(test)]
mod tests {
    use super::{LabelSmoothing, Loss};
    use crate::data::Batch;
    use crate::loss::CrossEntropy;
    use crate::model::Outputs;
    use tch::{Device, Kind, Tensor};

    fn recorded() -> (Outputs, Batch) {
        // Row 75.
        let factors = [1.0_f32, -0.5, 0.25, 2.0];
        let logits: Vec<f32> = (0..12)
            .map(|index| index as f32 * factors[index % 4])
            .collect();
        let logits = Tensor::from_slice(&logits).view([1, 3, 4]);
        let labels = Tensor::from_slice(&[1_i64, -100, 3]).view([1, 3]);
        let outputs = Outputs {
            loss: None,
            fields: vec![("logits".to_owned(), logits)],
        };
        (
            outputs,
            Batch {
                columns: vec![("labels".into(), labels)],
            },
        )
    }

    #[test]
    fn the_recorded_values_come_out() {
        let (outputs, batch) = recorded();
        for (epsilon, shift, expected) in [
            (0.1, false, 3.904_018_6),
            (0.0, false, 3.254_018_8),
            (0.1, true, 0.975_049_3),
        ] {
            let loss = LabelSmoothing::new(epsilon, shift)
                .loss(&outputs, &batch)
                .expect("a loss")
                .double_value(&[]);
            assert!((loss - expected).abs() < 1e-6, "{epsilon} {shift}: {loss}");
        }
    }

    #[test]
    fn it_is_cross_entropy_and_the_mean_of_all_classes() {
        // Row 74.
        let logits = (Tensor::arange(40, (Kind::Double, Device::Cpu)) * 0.7)
            .sin()
            .view([8, 5])
            * 3.0;
        let labels = Tensor::from_slice(&[0_i64, 4, -100, 2, 1, -100, 3, 3]);
        let active = labels.ne(-100);
        let mean = -(logits
            .log_softmax(-1, None)
            .mean_dim([-1_i64].as_slice(), false, None)
            .masked_select(&active)
            .mean(None));
        let outputs = Outputs {
            loss: None,
            fields: vec![("logits".to_owned(), logits)],
        };
        let batch = Batch {
            columns: vec![("labels".into(), labels)],
        };
        let cross_entropy = CrossEntropy.loss(&outputs, &batch).expect("a loss");
        let expected = (cross_entropy * 0.9 + mean * 0.1).double_value(&[]);
        let mut smoothing = LabelSmoothing::new(0.1, false);
        let loss = smoothing
            .loss(&outputs, &batch)
            .expect("a loss")
            .double_value(&[]);
        assert!((loss - expected).abs() < 1e-6, "{loss} {expected}");
        assert_eq!(smoothing.withheld_columns(), ["labels"]);
    }
}
