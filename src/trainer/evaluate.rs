//! Evaluation: a pass without gradients over each evaluation set, its loss and its metrics (spec 3.8).

use std::time::Instant;

use anyhow::{Context, Result};
use tch::{Kind, Tensor};

use super::{EvaluationSet, PredictionSink, Trainer, round};
use crate::callback::Event;
use crate::data::Batch;
use crate::error::Failure;
use crate::metric::EvaluationBatch;

/// Named numbers of a pass, in the order they are shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(pub Vec<(String, f64)>);

impl Metrics {
    /// The value of a metric, by its name with or without the `eval_` prefix.
    pub fn get(&self, name: &str) -> Option<f64> {
        let find = |wanted: &str| {
            self.0
                .iter()
                .find(|(key, _)| key == wanted)
                .map(|(_, value)| *value)
        };
        if name.starts_with("eval_") {
            find(name)
        } else {
            find(&format!("eval_{name}"))
        }
    }

    /// [`Metrics::get`], or an error that lists what there is.
    pub fn required(&self, name: &str) -> Result<f64> {
        let names = || {
            self.0
                .iter()
                .map(|(key, _)| key.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        self.get(name).ok_or_else(|| {
            Failure::usage(format!(
                "the evaluation reported no metric {name:?}; it reported {}",
                names()
            ))
            .hint("set --metric_for_best_model to one of them")
            .into()
        })
    }
}

/// Sum of losses over rows; the reference repeats a batch's loss for each of its rows and takes the mean.
#[derive(Default)]
struct LossMean {
    sum: f64,
    rows: u64,
    is_double: bool,
}

impl LossMean {
    fn add(&mut self, loss: &Tensor, rows: usize) -> Result<()> {
        self.is_double = loss.f_kind()? == Kind::Double;
        self.sum += loss.f_double_value(&[])? * rows as f64;
        self.rows += rows as u64;
        Ok(())
    }

    fn mean(&self) -> Option<f64> {
        let mean = (self.rows > 0).then(|| self.sum / self.rows as f64)?;
        Some(if self.is_double {
            mean
        } else {
            f64::from(mean as f32)
        })
    }
}

impl Trainer {
    /// Evaluates every set, logs, fires `on_evaluate`; the merged metrics.
    pub fn evaluate(&mut self, prefix: &str) -> Result<Metrics> {
        let mut sets = std::mem::take(&mut self.parts.evaluation);
        let result = self.evaluate_sets(&mut sets, prefix);
        self.parts.evaluation = sets;
        result
    }

    fn evaluate_sets(&mut self, sets: &mut [EvaluationSet], prefix: &str) -> Result<Metrics> {
        let mut all = Metrics::default();
        for set in sets {
            let prefix = if set.name.is_empty() {
                prefix.to_owned()
            } else {
                format!("{prefix}_{}", set.name)
            };
            let loss_only = self.config.prediction_loss_only || self.parts.metrics.is_empty();
            let mut metrics = self.pass(
                set,
                &prefix,
                PassOptions {
                    loss_only,
                    sink: None,
                },
            )?;
            self.log(&mut metrics.0)?;
            self.fire(Event::Evaluate(&metrics.0))?;
            all.0.append(&mut metrics.0);
        }
        Ok(all)
    }

    /// One pass over a set.
    pub(super) fn pass(
        &mut self,
        set: &mut EvaluationSet,
        prefix: &str,
        options: PassOptions<'_>,
    ) -> Result<Metrics> {
        let started = Instant::now();
        self.set_training_mode(false)?;
        let _no_gradients = tch::no_grad_guard();
        let mut pass = Pass {
            options,
            dataset: set.name.clone(),
            loss: LossMean::default(),
            has_labels: false,
            rows: 0,
        };
        if !pass.options.loss_only {
            for metric in &mut self.parts.metrics {
                metric.reset(&set.name)?;
            }
        }
        for loaded in set.loader.epoch()? {
            self.pass_batch(&mut pass, &loaded?.batch.to_device(self.config.device)?)?;
            self.fire(Event::PredictionStep)?;
        }
        let mut metrics = self.pass_metrics(&pass, prefix)?;
        let runtime = started.elapsed().as_secs_f64();
        let steps = pass.rows.div_ceil(set.batch_size as u64);
        metrics.push((format!("{prefix}_runtime"), round(runtime, 4)));
        metrics.push((
            format!("{prefix}_samples_per_second"),
            round(pass.rows as f64 / runtime, 3),
        ));
        metrics.push((
            format!("{prefix}_steps_per_second"),
            round(steps as f64 / runtime, 3),
        ));
        Ok(Metrics(metrics))
    }

    fn pass_batch(&mut self, pass: &mut Pass<'_>, batch: &Batch) -> Result<()> {
        let rows = batch.len();
        let labels = self.labels_of(batch);
        let outputs = self.forward(batch)?;
        if labels.is_some() {
            let loss = self.parts.loss.loss(&outputs, batch)?;
            pass.loss.add(&loss, rows)?;
        }
        pass.rows += rows as u64;
        pass.has_labels |= labels.is_some();
        if pass.options.loss_only && pass.options.sink.is_none() {
            return Ok(());
        }
        let ignored = self.parts.model.keys_to_ignore_at_inference();
        let mut fields: Vec<(String, Tensor)> = outputs
            .fields
            .into_iter()
            .filter(|(name, _)| !ignored.iter().any(|key| key == name))
            .collect();
        let labels = labels.unwrap_or_default();
        for processor in &mut self.parts.logits {
            let view = EvaluationBatch {
                outputs: &fields,
                labels: &labels,
                inputs: batch,
                dataset: &pass.dataset,
                size: rows,
            };
            fields = processor
                .preprocess(&view)
                .with_context(|| format!("logits processor {} failed", processor.name()))?;
        }
        let view = EvaluationBatch {
            outputs: &fields,
            labels: &labels,
            inputs: batch,
            dataset: &pass.dataset,
            size: rows,
        };
        if !pass.options.loss_only && pass.has_labels {
            for metric in &mut self.parts.metrics {
                metric
                    .update(&view)
                    .with_context(|| format!("metric {} failed", metric.name()))?;
            }
        }
        match &mut pass.options.sink {
            Some(sink) => sink.batch(&view),
            None => Ok(()),
        }
    }

    /// All label columns, if the batch has every one of them.
    fn labels_of(&self, batch: &Batch) -> Option<Vec<(String, Tensor)>> {
        let names = self.label_names();
        if names.is_empty() {
            return None;
        }
        names
            .into_iter()
            .map(|name| Some((name.clone(), batch.get(&name)?.shallow_clone())))
            .collect()
    }

    fn pass_metrics(&mut self, pass: &Pass<'_>, prefix: &str) -> Result<Vec<(String, f64)>> {
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        if !pass.options.loss_only && pass.has_labels {
            let with_prefix = format!("{prefix}_");
            for metric in &mut self.parts.metrics {
                let values = metric
                    .compute()
                    .with_context(|| format!("metric {} failed", metric.name()))?;
                for (name, value) in values {
                    if name.starts_with(&with_prefix) {
                        first.push((name, value));
                    } else {
                        rest.push((format!("{with_prefix}{name}"), value));
                    }
                }
            }
        }
        first.extend(
            pass.loss
                .mean()
                .map(|mean| (format!("{prefix}_loss"), mean)),
        );
        first.append(&mut rest);
        Ok(first)
    }
}

/// What a pass is for.
pub(super) struct PassOptions<'a> {
    /// Only the loss.
    pub loss_only: bool,
    /// Receives every batch's outputs.
    pub sink: Option<&'a mut dyn PredictionSink>,
}

struct Pass<'a> {
    options: PassOptions<'a>,
    dataset: String,
    loss: LossMean,
    has_labels: bool,
    rows: u64,
}
