//! Evaluation: a pass without gradients over each evaluation set, its loss and its metrics (spec 3.8).

use std::time::Instant;

use anyhow::{Context, Result};
use tch::{Kind, Tensor};

use super::speed::{self, Work};
use super::{EvaluationSet, PredictionSink, Trainer, capacity, round};
use crate::callback::Event;
use crate::data::Batch;
use crate::error::{Failure, told};
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

    /// Adds a value; one of the same name is replaced in its place, as in the reference's dictionaries.
    fn set(&mut self, name: String, value: f64) {
        match self.0.iter_mut().find(|(key, _)| *key == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
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
            let known = match self.0.is_empty() {
                true => "and none at all".to_owned(),
                false => format!("only {}", names()),
            };
            Failure::usage(format!(
                "the evaluation reports no metric {name:?}, {known}"
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
    /// Evaluates every set, logs, fires `on_evaluate`; the merged metrics. `None`: a signal ended it.
    pub fn evaluate(&mut self, prefix: &str) -> Result<Option<Metrics>> {
        self.begin_memory("eval")?;
        let mut sets = std::mem::take(&mut self.parts.evaluation);
        let result = self.evaluate_on(&mut sets, prefix);
        self.parts.evaluation = sets;
        let mut metrics = result?;
        if let Some(metrics) = &mut metrics {
            self.memory.end("eval", &mut metrics.0)?;
        }
        Ok(metrics)
    }

    /// [`Trainer::evaluate`] over other sets.
    pub fn evaluate_on(
        &mut self,
        sets: &mut [EvaluationSet],
        prefix: &str,
    ) -> Result<Option<Metrics>> {
        let mut all = Metrics::default();
        for set in sets {
            let prefix = set.prefix(prefix);
            let loss_only = self.config.prediction_loss_only || self.parts.metrics.is_empty();
            let options = PassOptions {
                loss_only,
                sink: None,
            };
            let Some(mut metrics) = self.pass(set, &prefix, options)? else {
                return Ok(None);
            };
            self.log(&mut metrics.0)?;
            self.fire(Event::Evaluate(&metrics.0))?;
            for (name, value) in metrics.0 {
                all.set(name, value);
            }
        }
        Ok(Some(all))
    }

    /// One pass over a set. `None`: a signal ended it.
    pub(super) fn pass(
        &mut self,
        set: &mut EvaluationSet,
        prefix: &str,
        options: PassOptions<'_>,
    ) -> Result<Option<Metrics>> {
        self.cast_for_evaluation()?;
        self.set_training_mode(false)?;
        let _no_gradients = tch::no_grad_guard();
        self.past = None;
        let compilation = match self.config.jit_mode_eval {
            true => Some(self.compile(set)?),
            false => None,
        };
        let started = Instant::now();
        let mut pass = Pass {
            options,
            dataset: set.name.clone(),
            compilation,
            batches: 0,
            rows: 0,
            num_rows: set.loader.num_rows(),
            loss: LossMean::default(),
            has_labels: false,
        };
        if !pass.options.loss_only {
            for metric in &mut self.parts.metrics {
                metric.reset(&set.name)?;
            }
        }
        for loaded in set.loader.epoch()? {
            if self.is_interrupted() {
                return Ok(None);
            }
            self.pass_batch(&mut pass, &loaded?.batch.to_device(self.config.device)?)?;
            self.bring_to_host(&mut pass)?;
            self.fire(Event::PredictionStep)?;
        }
        if set.loader.rows_passed() == 0 && set.loader.num_rows().is_none() {
            let message = format!("{prefix}: the streamed evaluation set yielded no row");
            let hint = "a pipe can be read only once; evaluate on a file";
            return Err(Failure::data(message).hint(hint).into());
        }
        self.past = None;
        self.parts.model.forget_compiled();
        let mut metrics = self.pass_metrics(&pass, prefix)?;
        let samples = set.loader.rows_passed() as u64;
        let steps = samples.div_ceil(set.batch_size as u64);
        for (name, value) in speed::metrics(prefix, started.elapsed(), Work { samples, steps }) {
            metrics.set(name, value);
        }
        Ok(Some(metrics))
    }

    /// Outside training the model may be cast, and stays so (spec 3.9).
    fn cast_for_evaluation(&mut self) -> Result<()> {
        match self.config.precision.full_evaluation {
            Some(kind) if !self.is_in_train => self
                .parts
                .model
                .set_kind(kind)
                .with_context(|| format!("casting the model to {kind:?}")),
            _ => Ok(()),
        }
    }

    fn pass_batch(&mut self, pass: &mut Pass<'_>, batch: &Batch) -> Result<()> {
        let rows = batch.len();
        let labels = self.labels_of(batch);
        let outputs = self.forward(batch)?;
        if labels.is_some() {
            let loss = self.parts.loss.loss(&outputs, batch)?;
            pass.loss.add(&loss, rows)?;
        }
        pass.has_labels |= labels.is_some();
        if pass.options.loss_only && pass.options.sink.is_none() {
            return Ok(());
        }
        let own = self.parts.model.keys_to_ignore_at_inference();
        let ignored = self.config.ignore_keys.as_deref().unwrap_or(own);
        let mut fields: Vec<(String, Tensor)> = outputs
            .fields
            .into_iter()
            .filter(|(name, _)| !ignored.iter().any(|key| key == name))
            .collect();
        let labels = labels.unwrap_or_default();
        let shown = self.shown_inputs(batch)?;
        for processor in &mut self.parts.logits {
            let view = EvaluationBatch {
                outputs: &fields,
                labels: &labels,
                inputs: &shown,
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
            inputs: &shown,
            dataset: &pass.dataset,
            size: rows,
        };
        if !pass.options.loss_only && pass.has_labels {
            for metric in &mut self.parts.metrics {
                metric
                    .update(&view)
                    .with_context(|| format!("metric {} failed", metric.name()))?;
            }
            if pass.rows == 0 {
                self.tell_excess(rows, pass.num_rows);
            }
            pass.rows += rows;
        }
        match &mut pass.options.sink {
            // What it writes may need the mask.
            Some(sink) => sink.batch(&EvaluationBatch {
                inputs: batch,
                ..view
            }),
            None => Ok(()),
        }
    }

    /// Every so many batches what has been kept of the outputs moves to main memory.
    fn bring_to_host(&mut self, pass: &mut Pass<'_>) -> Result<()> {
        pass.batches += 1;
        let Some(steps) = self.config.eval_accumulation_steps else {
            return Ok(());
        };
        if !pass.batches.is_multiple_of(steps) {
            return Ok(());
        }
        for metric in &mut self.parts.metrics {
            metric.to_host()?;
        }
        match &mut pass.options.sink {
            Some(sink) => sink.to_host(),
            None => Ok(()),
        }
    }

    /// Says after the first batch what will not fit into memory.
    fn tell_excess(&self, done: usize, rows: Option<usize>) {
        let Some((rows, available)) = rows.zip(capacity::available()) else {
            return;
        };
        for metric in &self.parts.metrics {
            let held = (metric.name(), metric.held_bytes());
            if let Some(excess) = capacity::excess(held, (done, rows), available) {
                tracing::warn!("{excess}");
            }
        }
    }

    /// Freezes the model and warms it up twice on the set's first batch, which takes a pass of the loader's draws as in the
    /// reference. Seconds that it took; where there is no such form, a warning tells why, and the model itself is run.
    fn compile(&mut self, set: &mut EvaluationSet) -> Result<f64> {
        let started = Instant::now();
        let example = set.loader.epoch()?.next().transpose()?;
        let compiled = self.parts.model.compile_for_evaluation();
        let warmed = compiled.and_then(|()| {
            for _ in 0..2 {
                if let Some(example) = &example {
                    self.forward(&example.batch.to_device(self.config.device)?)?;
                }
            }
            Ok(())
        });
        self.past = None;
        if let Err(error) = warmed {
            self.parts.model.forget_compiled();
            tracing::warn!("jit_mode_eval has no effect: {}", told(&error));
        }
        Ok(round(started.elapsed().as_secs_f64(), 4))
    }

    /// What metrics and logits processors may see of the inputs: the main one, if the user asked for it.
    fn shown_inputs(&self, batch: &Batch) -> Result<Batch> {
        if !self.config.include_inputs {
            return Ok(Batch::default());
        }
        let name = self.parts.model.main_input();
        let missing = || {
            let names: Vec<&str> = batch.columns.iter().map(|(name, _)| &**name).collect();
            let message = format!(
                "metrics are to see the input {name:?}, but the batch has only {}",
                names.join(", ")
            );
            Failure::data(message).hint("leave --include_inputs_for_metrics out")
        };
        let input = batch.get(name).ok_or_else(missing)?;
        Ok(Batch {
            columns: vec![(name.into(), input.shallow_clone())],
        })
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

    /// Values that a metric has prefixed itself, the loss, all other values: the reference's order.
    fn pass_metrics(&mut self, pass: &Pass<'_>, prefix: &str) -> Result<Metrics> {
        let values = if pass.options.loss_only || !pass.has_labels {
            Vec::new()
        } else {
            self.computed()?
        };
        let with_prefix = format!("{prefix}_");
        let (first, rest): (Vec<_>, Vec<_>) = values
            .into_iter()
            .partition(|(name, _)| name.starts_with(&with_prefix));
        let mut metrics = Metrics(first);
        if let Some(mean) = pass.loss.mean() {
            metrics.set(format!("{with_prefix}loss"), mean);
        }
        if let Some(seconds) = pass.compilation {
            metrics.set(format!("{with_prefix}jit_compilation_time"), seconds);
        }
        for (name, value) in rest {
            metrics.set(format!("{with_prefix}{name}"), value);
        }
        Ok(metrics)
    }

    /// The values of all metrics. Two metrics must not give the same one: the second would silently win.
    fn computed(&mut self) -> Result<Vec<(String, f64)>> {
        let mut all: Vec<(String, f64)> = Vec::new();
        for metric in &mut self.parts.metrics {
            let values = metric
                .compute()
                .with_context(|| format!("metric {} failed", metric.name()))?;
            if let Some((name, _)) = values
                .iter()
                .find(|(name, _)| all.iter().any(|(known, _)| known == name))
            {
                let message = format!(
                    "metric {} reports {name:?}, which another metric reports too",
                    metric.name()
                );
                return Err(Failure::usage(message)
                    .hint("leave one of the plugins out")
                    .into());
            }
            all.extend(values);
        }
        Ok(all)
    }

    /// Refuses a metric for the best model that no evaluation will report, if that is certain before the first step.
    pub(super) fn check_best_metric(&self) -> Result<()> {
        let Some(best) = &self.config.best else {
            return Ok(());
        };
        let mut names: Vec<String> = ["loss", "runtime", "samples_per_second", "steps_per_second"]
            .map(str::to_owned)
            .into();
        if !self.config.prediction_loss_only {
            for metric in &self.parts.metrics {
                match metric.names() {
                    Some(known) => names.extend(known),
                    None => return Ok(()),
                }
            }
        }
        let mut possible = Metrics::default();
        for set in &self.parts.evaluation {
            let prefix = set.prefix("eval");
            for name in &names {
                possible.set(format!("{prefix}_{name}"), 0.0);
            }
        }
        if possible.0.is_empty() {
            return Ok(());
        }
        possible.required(&best.metric).map(|_| ())
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
    /// Seconds that freezing the model took, if it was asked for.
    compilation: Option<f64>,
    batches: usize,
    /// Rows that the metrics have seen, and how many there will be.
    rows: usize,
    num_rows: Option<usize>,
    loss: LossMean,
    has_labels: bool,
}
