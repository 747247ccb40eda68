//! Measures plugin calls inside one process: `bench-plugin-calls FOLDER`, where the built plugins lie. Prints one JSON
//! object per row: what, the values of some rounds, their unit, and the limit if there is one.

#![expect(clippy::print_stdout, reason = "the output is the product")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use host::callback::{Callback, Context, Control, Event, TrainerState};
use host::data::Batch;
use host::metric::{EvaluationBatch, Metric};
use host::plugin::{Environment, Plugin, Spec, load};
use serde_json::json;
use tch::{Kind, Tensor};

const ROUNDS: usize = 9;

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).context("the folder of the built plugins is missing")?);
    callback(&folder)?;
    metric(&folder)
}

fn plugin(folder: &Path, name: &str, config: &serde_json::Value) -> Result<Plugin> {
    let mut spec = Spec::new(&folder.join(format!("{name}.wasm")));
    spec.config = config.as_object().cloned().unwrap_or_default();
    load(&spec, &Environment::default())
}

fn row(what: &str, values: &[f64], unit: &str, limit: Option<f64>) {
    println!("{}", json!({"what": what, "values": values, "unit": unit, "limit": limit}));
}

/// Seconds of one call, in each round.
fn rounds(calls: usize, mut call: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    let mut seconds = Vec::with_capacity(ROUNDS);
    call()?;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        for _ in 0..calls {
            call()?;
        }
        seconds.push(begin.elapsed().as_secs_f64() / calls as f64);
    }
    Ok(seconds)
}

/// A callback that does nothing: `on_train_end` of early stopping, with all that surrounds a call.
fn callback(folder: &Path) -> Result<()> {
    let plugin = plugin(folder, "early_stopping", &json!({"metric": "loss"}))?;
    let mut callback: Box<dyn Callback> = plugin.callbacks().pop().context("a callback")?;
    let state = TrainerState::new();
    let mut control = Control::default();
    let seconds = rounds(200_000, || {
        let mut context = Context {
            state: &state,
            control: &mut control,
            learning_rates: black_box(&[0.1, 0.2]),
            gradient_norm: None,
            elapsed_seconds: 1.0,
            micro_step: 1,
        };
        callback.on_event(Event::TrainEnd, &mut context)
    })?;
    let micros: Vec<f64> = seconds.iter().map(|seconds| seconds * 1e6).collect();
    row("a callback that does nothing", &micros, "us", Some(1.0));
    Ok(())
}

/// The counts that the plugin makes of a batch, by the same libtorch calls without a plugin.
fn native(logits: &Tensor, labels: &Tensor) -> Result<Vec<i64>> {
    let classes = logits.size()[1];
    let predictions = logits.f_argmax(-1, false)?;
    let ignored = labels.f_eq(-100)?;
    let labels = labels.f_masked_fill(&ignored, classes)?;
    let wrong = predictions.f_eq_tensor(&labels)?.f_logical_not()?;
    let count = |tensor: &Tensor| -> Result<Tensor> {
        let (low, high) = tensor.f_aminmax(None, false)?;
        black_box((low.f_int64_value(&[])?, high.f_int64_value(&[])?));
        Ok(tensor.f_bincount(None::<Tensor>, classes + 1)?)
    };
    let support = count(&labels)?;
    let predicted = count(&predictions.f_masked_fill(&ignored, classes)?)?;
    let correct = count(&labels.f_masked_fill(&wrong, classes)?)?;
    let counts = Tensor::f_stack(&[correct, predicted, support], 0)?.f_narrow(1, 0, classes)?.f_contiguous()?;
    let mut values = vec![0; counts.numel()];
    counts.f_copy_data(&mut values, counts.numel())?;
    Ok(values)
}

/// One update over 10,000 x 2 logits.
fn metric(folder: &Path) -> Result<()> {
    let plugin = plugin(folder, "classification_metrics", &json!({}))?;
    let mut metric: Box<dyn Metric> = plugin.metrics().pop().context("a metric")?;
    let logits = Tensor::f_rand([10_000, 2], (Kind::Float, tch::Device::Cpu))?;
    let labels = Tensor::f_randint(2, [10_000], (Kind::Int64, tch::Device::Cpu))?;
    let (outputs, label_columns) = ([("logits".to_owned(), logits.shallow_clone())], [("labels".to_owned(), labels.shallow_clone())]);
    let inputs = Batch::default();
    let batch = EvaluationBatch { outputs: &outputs, labels: &label_columns, inputs: &inputs, dataset: "", size: 10_000 };
    metric.reset("")?;
    let plugin_seconds = rounds(500, || metric.update(&batch))?;
    let native_seconds = rounds(500, || {
        black_box(native(&logits, &labels)?);
        Ok(())
    })?;
    let micros = |seconds: &[f64]| seconds.iter().map(|seconds| seconds * 1e6).collect::<Vec<f64>>();
    row("the libtorch calls of the metric, 10,000 x 2 logits", &micros(&native_seconds), "us", None);
    row("the metric as a plugin", &micros(&plugin_seconds), "us", None);
    let ratios: Vec<f64> = plugin_seconds.iter().zip(&native_seconds).map(|(plugin, native)| plugin / native).collect();
    row("plugin / native", &ratios, "x", Some(3.0));
    Ok(())
}
