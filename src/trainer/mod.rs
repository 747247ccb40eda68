//! The only training loop. It receives boxes and a small [`Config`]; it names no concrete loss, optimizer, model, metric
//! or reporter (I1), and knows nothing of arguments, files of the user, or plugins.
//!
//! | file | owns |
//! | --- | --- |
//! | [`plan`] | the arithmetic of epochs, steps and intervals |
//! | `train.rs` | epochs and batches |
//! | `step.rs` | one micro-batch, one update |
//! | [`accumulation`] | where a step ends and what the loss is divided by |
//! | `loss_log.rs` | what the log says of the loss |
//! | `block.rs` | log, evaluate, save when they are due |
//! | `evaluate.rs`, `predict.rs` | passes without gradients |
//! | `speed.rs`, `memory.rs` | what a log entry says of speed, what the results say of memory |
//! | `capacity.rs` | whether what a metric keeps will fit |
//! | `attempts.rs` | beginning again after memory ran out |
//! | `save.rs`, `resume.rs` | checkpoints, exact continuation |

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use tch::{Device, Tensor};

use crate::amp::{Precision, Scaler};
use crate::callback::{Callbacks, Change, Control, Event, Fault, Parameters, TrainerState, View};
use crate::data::Loader;
use crate::error::{kind_of, told};
use crate::loss::Loss;
use crate::metric::{LogitsProcessor, Metric};
use crate::model::Model;
use crate::optim::{LrScheduler, Optimizer};
use crate::report::{Reporter, Start, StepRecord};

pub mod accumulation;
mod attempts;
mod block;
mod capacity;
mod evaluate;
mod loss_log;
mod memory;
pub mod plan;
mod predict;
pub mod results;
mod resume;
mod round;
mod save;
mod speed;
mod step;
mod train;

pub use attempts::{Beginning, is_out_of_memory};
pub use evaluate::Metrics;
pub use plan::Plan;
pub use predict::{PredictionSink, Predictions};
pub use resume::batch_size_of;
pub use round::round;
pub use train::{End, Outcome};

use accumulation::Accumulation;
use loss_log::LossLog;
use memory::MemoryTracker;
use resume::Cursor;

/// What to do at a step whose loss or gradient is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNonfinite {
    /// Go on, count.
    Warn,
    /// Leave the update out, count.
    Skip,
    /// End the run; the update is left out.
    Stop,
}

/// Which metric decides the best model.
#[derive(Clone, Debug, PartialEq)]
pub struct BestModel {
    /// Name, with or without the `eval_` prefix.
    pub metric: String,
    /// Direction.
    pub greater_is_better: bool,
    /// Reload it at the end.
    pub load_at_end: bool,
}

/// Settings of the loop.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where checkpoints go.
    pub output_dir: PathBuf,
    /// Where tensors live.
    pub device: Device,
    /// Autocast, and evaluation in half precision.
    pub precision: Precision,
    /// Clip to this norm.
    pub max_grad_norm: Option<f64>,
    /// Leave losses that are not finite out of the logged mean.
    pub nan_inf_filter: bool,
    /// What to do with losses and gradients that are not finite.
    pub on_nonfinite: OnNonfinite,
    /// Best model tracking.
    pub best: Option<BestModel>,
    /// Keep so many checkpoints.
    pub save_total_limit: Option<usize>,
    /// A full disk ends the run instead of being reported.
    pub stop_on_disk_full: bool,
    /// Outputs that nobody sees; `None`: those that the model names itself.
    pub ignore_keys: Option<Vec<String>>,
    /// After so many batches of a pass, what keeps outputs moves them to main memory; `None`: at its end.
    pub eval_accumulation_steps: Option<usize>,
    /// Evaluation reports only the loss.
    pub prediction_loss_only: bool,
    /// Metrics and logits processors see the main input of each batch.
    pub include_inputs: bool,
    /// Evaluation runs a frozen form of the model, where there is one (spec 1.1, field 40).
    pub jit_mode_eval: bool,
    /// Output, counted from the loss as 0, that the next batch gets as `mems` (spec 1.1, field 55).
    pub past_index: Option<usize>,
    /// Label columns, if not those of the model.
    pub label_names: Option<Vec<String>>,
    /// Restart the epoch's data when resuming.
    pub ignore_data_skip: bool,
    /// Report what the stages take of memory.
    pub memory_metrics: bool,
    /// Report tokens per second of training.
    pub tokens_per_second: bool,
    /// The arguments, written as `training_args.json`.
    pub arguments: serde_json::Value,
    /// Files copied into every checkpoint (tokenizer).
    pub companions: Vec<PathBuf>,
}

/// One evaluation set.
pub struct EvaluationSet {
    /// Empty if it is the only one.
    pub name: String,
    /// Its batches, in file order.
    pub loader: Loader,
    /// Rows of a batch, for the speed metrics.
    pub batch_size: usize,
}

impl EvaluationSet {
    /// What the names of its metrics begin with, for `eval` or `test`.
    fn prefix(&self, prefix: &str) -> String {
        if self.name.is_empty() {
            prefix.to_owned()
        } else {
            format!("{prefix}_{}", self.name)
        }
    }
}

/// What wiring hands over.
pub struct Parts {
    /// The network.
    pub model: Box<dyn Model>,
    /// The objective.
    pub loss: Box<dyn Loss>,
    /// Metrics in call order.
    pub metrics: Vec<Box<dyn Metric>>,
    /// Logits processors in call order.
    pub logits: Vec<Box<dyn LogitsProcessor>>,
    /// Callbacks in call order.
    pub callbacks: Callbacks,
    /// Reporters in call order.
    pub reporters: Vec<Box<dyn Reporter>>,
    /// Evaluation sets in order.
    pub evaluation: Vec<EvaluationSet>,
    /// Full-precision record of batches and updates.
    pub step_record: Option<StepRecord>,
    /// Scales losses, for float16.
    pub scaler: Option<Box<dyn Scaler>>,
    /// Set by a signal: leave an evaluation, or end the step, commit a checkpoint and end.
    pub interrupted: Arc<AtomicBool>,
}

/// What only training needs.
pub struct Training {
    /// The batches.
    pub loader: Loader,
    /// The optimizer over the model's parameters.
    pub optimizer: Box<dyn Optimizer>,
    /// The schedule.
    pub scheduler: Box<dyn LrScheduler>,
    /// Epochs, steps, intervals.
    pub plan: Plan,
}

/// [`Training`] without its loader, which the batches of an epoch borrow.
struct Updates<'a> {
    optimizer: &'a mut dyn Optimizer,
    scheduler: &'a mut dyn LrScheduler,
    plan: &'a Plan,
}

impl Training {
    fn split(&mut self) -> (&mut Loader, Updates<'_>) {
        let updates = Updates {
            optimizer: &mut *self.optimizer,
            scheduler: &mut *self.scheduler,
            plan: &self.plan,
        };
        (&mut self.loader, updates)
    }
}

/// The trainer: a model with what surrounds it, and where it stands.
pub struct Trainer {
    config: Config,
    parts: Parts,
    state: TrainerState,
    control: Control,
    changes: Vec<Change>,
    is_in_train: bool,
    accumulation: Accumulation,
    losses: LossLog,
    /// Leaf tensors in model order; gradients live in them.
    parameters: Vec<Tensor>,
    parameter_names: Vec<String>,
    training_mode: Option<bool>,
    /// What the next batch of this pass gets as `mems`.
    past: Option<Tensor>,
    gradient_norm: Option<f64>,
    learning_rates: Vec<f64>,
    /// Whether every loss of the step in progress was finite.
    losses_finite: bool,
    nonfinite_steps: u64,
    started: Instant,
    training_seconds: f64,
    flos_since_log: f64,
    cursor: Cursor,
    /// Tokens that the run will see, for its speed.
    planned_tokens: Option<f64>,
    memory: MemoryTracker,
    saved_step: Option<u64>,
    failed_saves: u64,
    /// Steps of checkpoints in the output folder that are not of this run.
    earlier_checkpoints: Vec<u64>,
    /// The run that is resumed had come to its end.
    stopped_before: bool,
    /// A signal ended the last evaluation: the run that goes on begins with it.
    evaluation_owed: bool,
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Trainer")
            .field("config", &self.config)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Trainer {
    /// Builds a trainer and fires `on_init_end`. Generators must have been seeded before the model was made.
    pub fn new(config: Config, parts: Parts) -> Result<Self> {
        let mut memory = MemoryTracker::new(config.device);
        if config.memory_metrics {
            memory.begin("init")?;
        }
        let (parameter_names, parameters) = leaves(&*parts.model);
        let mut trainer = Self {
            config,
            parts,
            state: TrainerState::new(),
            control: Control::default(),
            changes: Vec::new(),
            is_in_train: false,
            accumulation: Accumulation::new(1),
            losses: LossLog::default(),
            parameters,
            parameter_names,
            training_mode: None,
            past: None,
            gradient_norm: None,
            learning_rates: Vec::new(),
            losses_finite: true,
            nonfinite_steps: 0,
            started: Instant::now(),
            training_seconds: 0.0,
            flos_since_log: 0.0,
            cursor: Cursor::default(),
            planned_tokens: None,
            memory,
            saved_step: None,
            failed_saves: 0,
            earlier_checkpoints: Vec::new(),
            stopped_before: false,
            evaluation_owed: false,
        };
        trainer.fire(Event::InitEnd)?;
        trainer.memory.end_init()?;
        Ok(trainer)
    }

    /// Another model in the place of the present one; the optimizer of the old one must not be used any more.
    pub fn set_model(&mut self, model: Box<dyn Model>) {
        (self.parameter_names, self.parameters) = leaves(&*model);
        self.parts.model = model;
        self.training_mode = None;
    }

    /// Other evaluation sets.
    pub fn set_evaluation(&mut self, sets: Vec<EvaluationSet>) {
        self.parts.evaluation = sets;
    }

    /// Other settings for what comes.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// The callbacks.
    pub fn callbacks(&self) -> &Callbacks {
        &self.parts.callbacks
    }

    /// The callbacks, to add some and take some out.
    pub fn callbacks_mut(&mut self) -> &mut Callbacks {
        &mut self.parts.callbacks
    }

    /// Where the run stands.
    pub fn state(&self) -> &TrainerState {
        &self.state
    }

    /// Steps whose loss or gradient was not finite.
    pub fn nonfinite_steps(&self) -> u64 {
        self.nonfinite_steps
    }

    /// Who changed the control flags during `train`, and why.
    pub fn control_changes(&self) -> &[Change] {
        &self.changes
    }

    /// Rows of each evaluation set (of a stream, those of its last pass), with the prefix that its metrics have for `prefix`.
    pub fn evaluation_rows(&self, prefix: &str) -> Vec<(String, usize)> {
        let sets = self.parts.evaluation.iter();
        sets.map(|set| (set.prefix(prefix), set.loader.rows_passed()))
            .collect()
    }

    /// Seconds that `train` has taken.
    pub fn training_seconds(&self) -> f64 {
        self.training_seconds
    }

    /// What the reporters say about themselves at the end of a run.
    pub fn report_summaries(&self) -> Vec<String> {
        let reporters = self.parts.reporters.iter();
        reporters
            .filter_map(|reporter| reporter.summary())
            .collect()
    }

    /// Tells the reporters that a run has ended.
    pub fn finish_reports(&mut self, status: &str) {
        let output_dir = &self.config.output_dir;
        report(&mut self.parts.reporters, "was not finished", |reporter| {
            reporter.finish(status, output_dir)
        });
    }

    /// The model.
    pub fn model(&self) -> &dyn Model {
        &*self.parts.model
    }

    /// Label columns of a batch, in order.
    fn label_names(&self) -> Vec<String> {
        self.config
            .label_names
            .clone()
            .unwrap_or_else(|| self.parts.model.label_names())
    }

    /// Tells callbacks that the run ends with an error, whose fate does not depend on them. Whoever ends the run calls it,
    /// once.
    pub fn fault(&mut self, error: &anyhow::Error) {
        let message = told(error);
        let fault = Fault {
            kind: kind_of(error).name(),
            message: &message,
        };
        let view = View {
            state: &self.state,
            learning_rates: &self.learning_rates,
            gradient_norm: self.gradient_norm,
            elapsed_seconds: self.started.elapsed().as_secs_f64(),
            micro_step: self.accumulation.total_batches(),
            parameters: Parameters::new(&self.parameter_names, &self.parameters),
        };
        self.parts.callbacks.fault(fault, view);
    }

    fn fire(&mut self, event: Event<'_>) -> Result<()> {
        self.fire_with(event, None)
    }

    /// `masters`: the copies that the optimizer updates in the place of the parameters that are trained.
    fn fire_with(&mut self, event: Event<'_>, masters: Option<&[Tensor]>) -> Result<()> {
        if masters.is_some() && !self.parts.callbacks.wants(event.kind()) {
            return Ok(());
        }
        let trained: Vec<String>;
        let parameters = match masters {
            None => Parameters::new(&self.parameter_names, &self.parameters),
            Some(masters) => {
                let named = self.parameter_names.iter().zip(&self.parameters);
                let is_trained = named.filter(|(_, parameter)| parameter.requires_grad());
                trained = is_trained.map(|(name, _)| name.clone()).collect();
                Parameters::new(&trained, masters)
            }
        };
        let view = View {
            state: &self.state,
            learning_rates: &self.learning_rates,
            gradient_norm: self.gradient_norm,
            elapsed_seconds: self.started.elapsed().as_secs_f64(),
            micro_step: self.accumulation.total_batches(),
            parameters,
        };
        self.parts.callbacks.call(event, view, &mut self.control)?;
        if self.control.has_changes() {
            let changes = self.control.take_changes();
            // Elsewhere a wish has no effect: an evaluation after the run must not seem to have stopped it.
            if self.is_in_train {
                self.changes.extend(changes);
            }
        }
        Ok(())
    }

    /// What callbacks are shown as the present rates.
    fn note_rates(&mut self, optimizer: &dyn Optimizer) {
        let rates = optimizer.groups().iter().map(|group| group.learning_rate);
        self.learning_rates.clear();
        self.learning_rates.extend(rates);
    }

    /// Floating point operations since the last entry or checkpoint become part of the state.
    fn store_flos(&mut self) {
        self.state.total_flos += std::mem::take(&mut self.flos_since_log);
    }

    /// Tells the reporters that training begins.
    fn start_reports(&mut self) {
        let model_config = self.parts.model.config();
        let start = Start {
            arguments: &self.config.arguments,
            model_config: model_config.as_ref(),
            history: &self.state.log_history,
        };
        report(&mut self.parts.reporters, "was not started", |reporter| {
            reporter.start(&start)
        });
    }

    /// Begins to measure the memory of a stage, if the run does that.
    fn begin_memory(&mut self, stage: &'static str) -> Result<()> {
        if self.config.memory_metrics {
            self.memory.begin(stage)?;
        }
        Ok(())
    }

    fn set_training_mode(&mut self, training: bool) -> Result<()> {
        if self.training_mode != Some(training) {
            self.parts.model.set_training(training)?;
            self.training_mode = Some(training);
        }
        Ok(())
    }

    fn is_interrupted(&self) -> bool {
        self.parts.interrupted.load(Ordering::Relaxed)
    }
}

/// The names of the parameters and the tensors that gradients live in, in model order.
fn leaves(model: &dyn Model) -> (Vec<String>, Vec<Tensor>) {
    let parameters = model.parameters().iter();
    parameters
        .map(|parameter| (parameter.name.clone(), parameter.tensor.shallow_clone()))
        .unzip()
}

/// Calls every reporter. One that fails does not fail the run: the log says what it left undone.
fn report(
    reporters: &mut [Box<dyn Reporter>],
    undone: &str,
    mut call: impl FnMut(&mut dyn Reporter) -> Result<()>,
) {
    for reporter in reporters {
        if let Err(error) = call(&mut **reporter) {
            let why = told(&error);
            tracing::warn!("the report {} {undone}: {why}", reporter.name());
        }
    }
}
