//! The boxes of a run: loss, metrics, logits processors, callbacks, reporters, and the plugins among them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use tch::{Device, Kind};

use super::device;
use super::inputs::Inputs;
use super::plugins::Plugins;
use super::progress::{Mode, Progress};
use crate::amp::{DynamicScaler, Precision, Scaler};
use crate::callback::{Callback, Callbacks, DefaultFlow, EarlyStopping, Schedule};
use crate::cli::output;
use crate::config::run::{Command, Half, OnDiskFull, OnNonfinite, Resume, Run, Strategy};
use crate::error::Failure;
use crate::loss::{self, LossSettings};
use crate::metric::{Accuracy, Metric};
use crate::model::{Model, ProblemType, Task};
use crate::report::{Curves, Reporter, StepRecord};
use crate::trainer::{self, BestModel, EvaluationSet, Parts};

/// The trainer's settings.
pub(crate) fn config(run: &Run, companions: Vec<PathBuf>) -> trainer::Config {
    let evaluation = &run.evaluation;
    let best = evaluation
        .metric_for_best_model
        .as_ref()
        .map(|metric| BestModel {
            metric: metric.clone(),
            greater_is_better: evaluation.greater_is_better,
            load_at_end: evaluation.load_best_model_at_end,
        });
    trainer::Config {
        output_dir: run.output_dir.clone(),
        device: device::of(run),
        precision: Precision {
            autocast: run.precision.autocast.map(half),
            half_model: run.precision.model.is_some(),
            full_evaluation: run.precision.full_evaluation.map(half),
        },
        max_grad_norm: run.train.max_grad_norm,
        nan_inf_filter: run.logging.nan_inf_filter,
        on_nonfinite: match run.train.on_nonfinite {
            OnNonfinite::Warn => trainer::OnNonfinite::Warn,
            OnNonfinite::Skip => trainer::OnNonfinite::Skip,
            OnNonfinite::Stop => trainer::OnNonfinite::Stop,
        },
        best,
        save_total_limit: run.saving.total_limit,
        stop_on_disk_full: run.saving.on_disk_full == OnDiskFull::Stop,
        ignore_keys: evaluation.ignore_keys.clone(),
        eval_accumulation_steps: evaluation.accumulation_steps,
        prediction_loss_only: evaluation.prediction_loss_only,
        include_inputs: evaluation.include_inputs,
        jit_mode_eval: evaluation.jit_mode_eval,
        past_index: run.train.past_index,
        label_names: run.model.label_names.clone(),
        ignore_data_skip: run.train.ignore_data_skip,
        memory_metrics: run.logging.memory_metrics,
        tokens_per_second: run.logging.tokens_per_second,
        arguments: serde_json::Value::Object(run.arguments.clone()),
        companions,
    }
}

fn half(half: Half) -> Kind {
    match half {
        Half::Bfloat16 => Kind::BFloat16,
        Half::Float16 => Kind::Half,
    }
}

/// What the run asks of the model itself: its device, its element type, recomputation, the watch over its numbers.
pub(crate) fn prepare_model(run: &Run, model: &mut dyn Model) -> Result<()> {
    place(run, model)?;
    if let Some(half) = run.precision.model {
        model.set_kind(self::half(half))?;
    }
    if run.train.gradient_checkpointing {
        model.recompute_activations()?;
    }
    if run.train.watch_numbers {
        model.watch_numbers()?;
    }
    Ok(())
}

/// The model is made on the CPU, so that it is drawn with the same numbers everywhere.
pub(super) fn place(run: &Run, model: &mut dyn Model) -> Result<()> {
    match device::of(run) {
        Device::Cpu => Ok(()),
        device => model.set_device(device),
    }
}

/// Label columns: as the run names them, else the model's own.
pub(crate) fn label_names(run: &Run, model: &dyn Model) -> Vec<String> {
    let named = run.model.label_names.clone();
    named.unwrap_or_else(|| model.label_names())
}

/// For float16, whose small gradients would vanish; bfloat16 has the range of float32.
pub(crate) fn scaler(run: &Run) -> Option<Box<dyn Scaler>> {
    run.precision
        .scales_losses
        .then(|| Box::new(DynamicScaler::default()) as Box<dyn Scaler>)
}

fn schedule(strategy: Strategy) -> Schedule {
    match strategy {
        Strategy::No => Schedule::Never,
        Strategy::Steps => Schedule::Steps,
        Strategy::Epoch => Schedule::Epoch,
    }
}

/// The built-in metric of the task, where no plugin brings one.
fn builtin_metrics(inputs: &Inputs) -> Vec<Box<dyn Metric>> {
    match (inputs.task, inputs.problem_type) {
        (None, _) | (Some(Task::SequenceClassification), Some(ProblemType::Regression)) => {
            Vec::new()
        }
        (Some(Task::SequenceClassification), Some(ProblemType::MultiLabelClassification)) => {
            vec![Box::new(Accuracy::multi_label())]
        }
        _ => vec![Box::new(Accuracy::new())],
    }
}

/// When the run logs, evaluates and saves.
pub(crate) fn default_flow(run: &Run) -> DefaultFlow {
    DefaultFlow {
        logging: schedule(run.logging.strategy),
        logging_first_step: run.logging.first_step,
        evaluation: schedule(run.evaluation.strategy),
        evaluation_delay: run.evaluation.delay,
        saving: schedule(run.saving.strategy),
    }
}

/// Callbacks in the reference's order: default flow, the user's, progress last.
pub(crate) fn callbacks(run: &Run, users: Vec<Box<dyn Callback>>) -> Callbacks {
    let mut callbacks = Callbacks::default();
    if run.callbacks.default_flow {
        callbacks.push(Box::new(default_flow(run)));
    }
    if let (Some(patience), Some(metric)) = (
        run.evaluation.early_stopping_patience,
        &run.evaluation.metric_for_best_model,
    ) {
        let (threshold, greater) = (
            run.evaluation.early_stopping_threshold,
            run.evaluation.greater_is_better,
        );
        callbacks.push(Box::new(EarlyStopping::new(
            patience, threshold, metric, greater,
        )));
    }
    for callback in users {
        callbacks.push(callback);
    }
    if run.callbacks.progress {
        let plain = run.logging.disable_tqdm || !output::has_terminal();
        callbacks.push(Box::new(Progress::new(if plain {
            Mode::Lines
        } else {
            Mode::Bar
        })));
    }
    callbacks
}

/// What is fed back must have somewhere to go.
fn check_memory(run: &Run, model: &dyn Model) -> Result<()> {
    let arguments = model.forward_arguments();
    if run.train.past_index.is_none() || arguments.iter().any(|name| name == "mems") {
        return Ok(());
    }
    let message = format!(
        "past_index feeds an output back as `mems`, but forward takes only {}",
        arguments.join(", ")
    );
    Err(Failure::usage(message)
        .hint("give a TorchScript module whose forward takes `mems`, or leave --past_index out")
        .into())
}

/// What the trainer is made of; takes the model out of `inputs`.
pub(super) fn assemble(
    run: &Run,
    inputs: Inputs,
    evaluation: Vec<EvaluationSet>,
    (plugins, interrupted): (&Plugins, Arc<AtomicBool>),
) -> Result<Parts> {
    check_memory(run, &*inputs.model)?;
    let mut metrics = plugins.metrics();
    if metrics.is_empty() {
        metrics = builtin_metrics(&inputs);
    }
    let mut reporters: Vec<Box<dyn Reporter>> = vec![Box::new(Curves::default())];
    if run.command == Command::Train {
        let resumes = run.train.resume != Resume::No;
        reporters.extend(plugins.reporters(run, resumes)?);
    }
    let settings = LossSettings {
        task: inputs.task,
        problem_type: inputs.problem_type,
        label_smoothing_factor: run.train.label_smoothing_factor,
        shift_labels: false,
    };
    let loss = plugins.loss(label_names(run, &*inputs.model));
    Ok(Parts {
        loss: loss.unwrap_or_else(|| loss::for_model(&*inputs.model, &settings)),
        metrics,
        logits: plugins.logits(),
        callbacks: callbacks(run, plugins.callbacks()),
        reporters,
        evaluation,
        step_record: run
            .logging
            .record_steps
            .as_deref()
            .map(StepRecord::create)
            .transpose()?,
        scaler: scaler(run),
        interrupted,
        model: inputs.model,
    })
}
