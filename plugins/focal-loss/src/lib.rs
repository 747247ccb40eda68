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
