//! Accuracy, precision, recall and F1 of classifiers, batch by batch. Logits never leave the host: each batch becomes three
//! counts per class by tensor operations, and only these are read.

mod counts;

use counts::Counts;
use serde::Deserialize;
use trainer_sdk::{Accumulator, Batch, Dtype, Error, Metrics, Plugin, Result, Run, Setup, Tensor};

/// How the numbers of the classes become one, as in scikit-learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Average {
    /// Only the positive class.
    Binary,
    /// The mean over the classes that occur.
    Macro,
    /// From the sums over all classes.
    Micro,
    /// The mean over the classes, weighted by how often each is true.
    Weighted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    Accuracy,
    Precision,
    Recall,
    F1,
}

#[derive(Clone, Debug, Deserialize)]
struct Config {
    average: Average,
    metrics: Vec<Name>,
    positive_class: usize,
    threshold: f64,
    ignore_index: i64,
}

struct ClassificationMetrics(Config);

impl Plugin for ClassificationMetrics {
    type Config = Config;

    fn init(config: Config, _: &Run<'_>, _: &Setup<'_>) -> Result<Self> {
        Ok(Self(config))
    }
}

impl Metrics for ClassificationMetrics {
    type Accumulator = Pass;

    fn accumulator(&self, _dataset: &str) -> Pass {
        Pass {
            config: self.0.clone(),
            counts: Counts::default(),
        }
    }
}

/// One evaluation pass.
struct Pass {
    config: Config,
    counts: Counts,
}

impl Accumulator for Pass {
    fn update(&mut self, batch: &Batch<'_>) -> Result<()> {
        let (outputs, labels) = (batch.logits()?, batch.target()?);
        let (shape, label_shape) = (outputs.shape()?, labels.shape()?);
        let scores = is_float(&outputs)?;
        match shape.split_last() {
            Some((classes, rest)) if scores && rest == label_shape && *classes > 1 => {
                self.single(&outputs.argmax(-1)?, &labels, *classes)
            }
            Some(_) if !scores && shape == label_shape => {
                let classes = largest(&outputs)?.max(largest(&labels)?) + 1;
                self.single(&outputs, &labels, classes)
            }
            Some((classes, _))
                if scores && shape == label_shape && shape.len() > 1 && *classes > 1 =>
            {
                self.multi(&outputs, &labels, *classes)
            }
            _ => Err(Error::data(format!(
                "outputs of shape {shape:?} and labels of shape {label_shape:?} are not those of a classifier"
            ))),
        }
    }

    fn compute(&self) -> Result<Vec<(String, f64)>> {
        let Config {
            average,
            positive_class,
            ..
        } = self.config;
        let [precision, recall, f1] = self.counts.averaged(average, positive_class)?;
        let number = |name: &Name| match name {
            Name::Accuracy => ("accuracy".to_owned(), self.counts.accuracy()),
            Name::Precision => ("precision".to_owned(), precision),
            Name::Recall => ("recall".to_owned(), recall),
            Name::F1 => ("f1".to_owned(), f1),
        };
        Ok(self.config.metrics.iter().map(number).collect())
    }

    fn partial(&self) -> Result<Vec<u8>> {
        Ok(self.counts.to_bytes())
    }

    fn merge(&mut self, partial: &[u8]) -> Result<()> {
        self.counts.add(&Counts::from_bytes(partial)?);
        Ok(())
    }
}

impl Pass {
    /// One class per element. Two more are counted: the first class that there is not, which no label may have, and one
    /// for what is ignored.
    fn single(&mut self, predictions: &Tensor, labels: &Tensor, classes: u64) -> Result<()> {
        let outside = (classes + 1) as f64;
        let ignored = labels.equal_scalar(self.config.ignore_index as f64)?;
        let labels = labels.fill_where(&ignored, outside)?;
        let wrong = (!&predictions.equal(&labels)?)?;
        let out_of_range = || {
            Error::data(format!(
                "labels must be classes 0 to {} or {}",
                classes - 1,
                self.config.ignore_index
            ))
        };
        let support = labels.bincount(classes + 2).map_err(|_| out_of_range())?;
        let predicted = predictions
            .fill_where(&ignored, outside)?
            .bincount(classes + 2)?;
        let correct = labels.fill_where(&wrong, outside)?.bincount(classes + 2)?;
        let width = classes + 1;
        let counts = Tensor::stack(&[&correct, &predicted, &support], 0)?
            .narrow(1, 0, width)?
            .read_signed64(0, 3 * width)?;
        if counts.last() != Some(&0) {
            return Err(out_of_range());
        }
        let rows = self.counts.add_classes(&counts, width as usize, false);
        self.counts.add_rows(rows.correct, rows.all);
        Ok(())
    }

    /// A yes or no for each class. A row is correct if all of its labels that count are.
    fn multi(&mut self, logits: &Tensor, labels: &Tensor, classes: u64) -> Result<()> {
        let flat = [-1, classes as i64];
        let (logits, labels) = (logits.reshape(&flat)?, labels.reshape(&flat)?);
        let threshold = self.config.threshold;
        let counted = (!&labels.equal_scalar(self.config.ignore_index as f64)?)?;
        let predicted = (&logits.greater_scalar((threshold / (1.0 - threshold)).ln())? & &counted)?;
        let truth = labels.greater_scalar(0.5)?;
        let correct = (&predicted & &truth)?.sum(&[0], false)?;
        let mistakes = (!&predicted.equal(&truth)?)?.sum(&[1], false)?;
        let counts = Tensor::stack(
            &[
                &correct,
                &predicted.sum(&[0], false)?,
                &truth.sum(&[0], false)?,
            ],
            0,
        )?;
        self.counts.add_classes(
            &counts.read_signed64(0, 3 * classes)?,
            classes as usize,
            true,
        );
        let rows = logits.shape()?[0];
        self.counts
            .add_rows(mistakes.equal_scalar(0.0)?.sum_all()?.item()? as u64, rows);
        Ok(())
    }
}

fn is_float(tensor: &Tensor) -> Result<bool> {
    Ok(matches!(
        tensor.dtype()?,
        Dtype::Float16 | Dtype::Brain16 | Dtype::Float32 | Dtype::Float64
    ))
}

fn largest(classes: &Tensor) -> Result<u64> {
    if classes.shape()?.contains(&0) {
        return Ok(0);
    }
    Ok(classes.amax(&[], false)?.item()?.max(0.0) as u64)
}

trainer_sdk::manifest!("../manifest.json");
trainer_sdk::export!(ClassificationMetrics: metrics);
