//! What a call into a plugin costs: a callback that does nothing, and a metric over 10,000 x 2 logits beside the same
//! tensor operations in native code. Prints one JSON object a line for `run.py`.
//!
//!     bench-plugin-calls PLUGINS_FOLDER GUESTS_FOLDER
#![expect(clippy::print_stdout, reason = "its output is its result")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use host::callback::{Callback, Context, Control, Event, Parameters, TrainerState};
use host::data::Batch;
use host::metric::{EvaluationBatch, Metric};
use host::plugin::{Environment, Plugin, Spec, load};
use serde_json::json;
use tch::{Device, Kind, Tensor, no_grad};

const RUNS: usize = 9;
const ROWS: i64 = 10_000;
const CLASSES: i64 = 2;
const IGNORED: i64 = -100;

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [plugins, guests] = &arguments[..] else {
        anyhow::bail!("usage: bench-plugin-calls PLUGINS_FOLDER GUESTS_FOLDER");
    };
    tch::set_num_threads(1);
    let idle = opened(&guests.join("idle.wasm"))?;
    let mut callbacks = idle.callbacks();
    let callback = callbacks.first_mut().context("idle.wasm has no callback")?;
    report(
        "a callback that does nothing",
        "us",
        Some(1.0),
        &callback_calls(&mut **callback)?,
    );

    let metrics = opened(&plugins.join("classification_metrics.wasm"))?;
    let mut metrics = metrics.metrics();
    let metric = metrics
        .first_mut()
        .context("classification_metrics.wasm has no metric")?;
    let [plugin, native] = no_grad(|| metric_passes(&mut **metric))?;
    report(
        "metrics of 10,000 x 2 logits, by the plugin",
        "us",
        None,
        &plugin,
    );
    report("the same, native", "us", None, &native);
    let ratios: Vec<f64> = plugin
        .iter()
        .zip(&native)
        .map(|(plugin, native)| plugin / native)
        .collect();
    report("plugin / native", "x", Some(3.0), &ratios);
    Ok(())
}

fn opened(path: &Path) -> Result<Plugin> {
    load(&Spec::new(path), &Environment::default())
        .with_context(|| format!("{}; run `make plugins guests`", path.display()))
}

fn report(what: &str, unit: &str, limit: Option<f64>, values: &[f64]) {
    println!(
        "{}",
        json!({ "what": what, "unit": unit, "limit": limit, "values": values })
    );
}

/// Microseconds per call of `work`, one number for each run.
fn microseconds(calls: u32, mut work: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    work()?;
    let mut values = Vec::new();
    for _ in 0..RUNS {
        let begin = Instant::now();
        for _ in 0..calls {
            work()?;
        }
        values.push(1e6 * begin.elapsed().as_secs_f64() / f64::from(calls));
    }
    Ok(values)
}

fn callback_calls(callback: &mut dyn Callback) -> Result<Vec<f64>> {
    let state = TrainerState::new();
    let mut control = Control::default();
    let mut context = Context {
        state: &state,
        control: &mut control,
        learning_rates: &[1e-3, 1e-3],
        gradient_norm: Some(1.0),
        elapsed_seconds: 1.0,
        micro_step: 1,
        parameters: Parameters::default(),
    };
    microseconds(100_000, || callback.on_event(Event::StepEnd, &mut context))
}

/// One pass of one batch: by the plugin, and native.
fn metric_passes(metric: &mut dyn Metric) -> Result<[Vec<f64>; 2]> {
    tch::manual_seed(1);
    let logits = Tensor::f_randn([ROWS, CLASSES], (Kind::Float, Device::Cpu))?;
    let labels = Tensor::f_randint(CLASSES, [ROWS], (Kind::Int64, Device::Cpu))?;
    let outputs = [("logits".to_owned(), logits.shallow_clone())];
    let targets = [("labels".to_owned(), labels.shallow_clone())];
    let inputs = Batch::default();
    let batch = EvaluationBatch {
        outputs: &outputs,
        labels: &targets,
        inputs: &inputs,
        dataset: "",
        size: ROWS as usize,
    };
    let mut accuracy = 0.0;
    let plugin = microseconds(300, || {
        metric.reset("")?;
        metric.update(&batch)?;
        let values = metric.compute()?;
        accuracy = values
            .iter()
            .find(|(name, _)| name == "accuracy")
            .context("no accuracy")?
            .1;
        Ok(())
    })?;
    let mut counts = Vec::new();
    let native = microseconds(300, || {
        counts = native_counts(&logits, &labels)?;
        Ok(())
    })?;
    let correct: i64 = counts[..CLASSES as usize].iter().sum();
    ensure!(
        accuracy == correct as f64 / ROWS as f64,
        "the plugin found {accuracy}, native code {correct} correct rows"
    );
    Ok([plugin, native])
}

/// The operations of the plugin: correct, predicted and true rows of each class.
fn native_counts(logits: &Tensor, labels: &Tensor) -> Result<Vec<i64>> {
    let predictions = logits.f_argmax(-1, false)?;
    let ignored = labels.f_eq(IGNORED)?;
    let labels = labels.f_masked_fill(&ignored, CLASSES)?;
    let wrong = predictions.f_eq_tensor(&labels)?.f_logical_not()?;
    let counted = |classes: &Tensor| classes.f_bincount(None::<&Tensor>, CLASSES + 1);
    let support = counted(&labels)?;
    let predicted = counted(&predictions.f_masked_fill(&ignored, CLASSES)?)?;
    let correct = counted(&labels.f_masked_fill(&wrong, CLASSES)?)?;
    let counts = Tensor::f_stack(&[&correct, &predicted, &support], 0)?
        .f_narrow(1, 0, CLASSES)?
        .f_contiguous()?;
    Ok(Vec::<i64>::try_from(counts.f_view(-1)?)?)
}
