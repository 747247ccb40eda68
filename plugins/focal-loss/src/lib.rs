//! Loss: the focal loss (Lin and others, 2017) of a classifier of rows or tokens, `-(1 - p)^gamma log p` for the
//! probability `p` of the right class, as the mean over the labels that count. All of it runs in libtorch.

use serde::Deserialize;
use trainer_sdk::{Batch, Error, Loss, Plugin, Result, Run, Setup, Tensor};

/// Below this, `1 - p` has no derivative: powers less than one are infinitely steep at 0.
const SURE: f64 = 1e-6;

#[derive(Clone, Debug, Deserialize)]
struct Config {
    gamma: f64,
    ignore_index: i64,
}

struct FocalLoss(Config);

impl Plugin for FocalLoss {
    type Config = Config;

    fn init(config: Config, _: &Run<'_>, _: &Setup<'_>) -> Result<Self> {
        Ok(Self(config))
    }
}

impl Loss for FocalLoss {
    fn compute_loss(&mut self, batch: &Batch<'_>) -> Result<Tensor> {
        let (logits, labels) = (batch.logits()?, batch.target()?);
        let (shape, label_shape) = (logits.shape()?, labels.shape()?);
        let classes = match shape.split_last() {
            Some((classes, rest)) if rest == label_shape => *classes as i64,
            _ => {
                return Err(Error::data(format!(
                    "outputs of shape {shape:?} and labels of shape {label_shape:?} are not those of a classifier"
                )));
            }
        };
        let labels = labels.reshape(&[-1, 1])?;
        let ignored = labels.equal_scalar(self.0.ignore_index as f64)?;
        let log_probabilities = logits.reshape(&[-1, classes])?.log_softmax(-1)?;
        let right = log_probabilities.gather(1, &labels.fill_where(&ignored, 0.0)?)?;
        let weighted = if self.0.gamma == 0.0 {
            right
        } else {
            let doubt = (&(-&right.exp()?)? + 1.0)?.clamp(SURE, 1.0)?;
            (&doubt.pow_scalar(self.0.gamma)? * &right)?
        };
        let sum = (-&weighted.fill_where(&ignored, 0.0)?.sum_all()?)?;
        &sum / &(!&ignored)?.sum_all()?
    }
}

trainer_sdk::manifest!("../manifest.json");
trainer_sdk::export!(FocalLoss: loss);

#[cfg(test)]
mod tests {
    use trainer_sdk::testing::{BatchParts, init};

    use super::*;

    fn loss(config: &str, logits: Tensor, labels: Tensor) -> Result<f64> {
        let mut plugin = init::<FocalLoss>(config)?;
        let batch = BatchParts::new(2)
            .output("logits", logits)
            .label("labels", labels);
        plugin.compute_loss(&batch.view())?.item()
    }

    fn logits() -> Tensor {
        // Probabilities 1/4, 3/4 and 1/2, 1/2.
        let three = 3.0_f32.ln();
        Tensor::from_float32(&[2, 2], &[0.0, three, 0.0, 0.0]).expect("a tensor")
    }

    fn labels(labels: [i64; 2]) -> Tensor {
        Tensor::from_signed64(&[2], &labels).expect("a tensor")
    }

    #[test]
    fn easy_examples_count_less() {
        let config = |gamma: f64| format!("{{\"gamma\": {gamma}, \"ignore_index\": -100}}");
        for gamma in [0.0, 0.5, 2.0] {
            let value = loss(&config(gamma), logits(), labels([1, 0])).expect("a loss");
            let example = |p: f64| -(1.0 - p).powf(gamma) * p.ln();
            let expected = (example(0.75) + example(0.5)) / 2.0;
            assert!(
                (value - expected).abs() < 1e-6,
                "{gamma}: {value} {expected}"
            );
        }
        let value = loss(&config(0.0), logits(), labels([-100, 1])).expect("a loss");
        assert!((value - 2.0_f64.ln()).abs() < 1e-6, "{value}");
    }

    #[test]
    fn what_is_no_classification_is_told() {
        let config = "{\"gamma\": 2, \"ignore_index\": -100}";
        let scores = Tensor::from_float32(&[2], &[0.5, 1.0]).expect("a tensor");
        let error = loss(config, scores, labels([0, 1])).expect_err("no classes");
        assert!(
            error.message.contains("are not those of a classifier"),
            "{error}"
        );
        let error = loss(config, logits(), labels([0, 2])).expect_err("no such class");
        assert!(error.message.contains("out of bounds"), "{error}");
    }
}
