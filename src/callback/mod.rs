//! Callbacks: the 13 events of the reference and four of our own, the state they read and the wishes they express.

use anyhow::Result;
use tch::Tensor;

mod control;
mod default_flow;
mod dispatcher;
mod early_stopping;
mod state;

pub use control::{Change, Control};
pub use default_flow::{DefaultFlow, Schedule};
pub use dispatcher::{Callbacks, View};
pub use early_stopping::EarlyStopping;
pub use state::TrainerState;

/// Where in a run a callback is called. Order and meaning: spec 3.1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// The trainer has been built.
    InitEnd,
    /// Before the first step of `train`.
    TrainBegin,
    /// After the last step, the best model is loaded.
    TrainEnd,
    /// Before the first batch of an epoch.
    EpochBegin,
    /// After the last batch of an epoch.
    EpochEnd,
    /// Before the first batch of a step.
    StepBegin,
    /// After a batch that did not end a step.
    SubstepEnd,
    /// After an optimizer step.
    StepEnd,
    /// After an evaluation; metrics with their prefix.
    Evaluate(&'a [(String, f64)]),
    /// After a prediction pass; metrics with their prefix.
    Predict(&'a [(String, f64)]),
    /// After a checkpoint was committed; its folder.
    Save(&'a std::path::Path),
    /// After an entry was added to the log history; its values without `step`.
    Log(&'a [(String, f64)]),
    /// After each batch of an evaluation or prediction pass.
    PredictionStep,
    /// Not of the reference: the gradients of a step are clipped, its update is about to be made.
    PreOptimizerStep,
    /// Not of the reference: the update of a step was made, its gradients are still there.
    OptimizerStep,
    /// Not of the reference: a run goes on from this checkpoint folder; before [`Event::TrainBegin`].
    Resume(&'a std::path::Path),
    /// Not of the reference: the run ends with an error.
    Fault(Fault<'a>),
}

/// An error that ends a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault<'a> {
    /// [`crate::error::Kind::name`].
    pub kind: &'static str,
    /// All of it as it is shown.
    pub message: &'a str,
}

/// The events without their payload, for subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names of `Event`")]
pub enum EventKind {
    InitEnd,
    TrainBegin,
    TrainEnd,
    EpochBegin,
    EpochEnd,
    StepBegin,
    SubstepEnd,
    StepEnd,
    Evaluate,
    Predict,
    Save,
    Log,
    PredictionStep,
    PreOptimizerStep,
    OptimizerStep,
    Resume,
    Fault,
}

/// The kinds of the reference, in the order of their numbers.
pub const EVENT_KINDS: [EventKind; 13] = [
    EventKind::InitEnd,
    EventKind::TrainBegin,
    EventKind::TrainEnd,
    EventKind::EpochBegin,
    EventKind::EpochEnd,
    EventKind::StepBegin,
    EventKind::SubstepEnd,
    EventKind::StepEnd,
    EventKind::Evaluate,
    EventKind::Predict,
    EventKind::Save,
    EventKind::Log,
    EventKind::PredictionStep,
];

/// The kinds that the reference does not have; their numbers follow.
pub const OWN_EVENT_KINDS: [EventKind; 4] = [
    EventKind::PreOptimizerStep,
    EventKind::OptimizerStep,
    EventKind::Resume,
    EventKind::Fault,
];

impl Event<'_> {
    /// The event without its payload.
    pub fn kind(&self) -> EventKind {
        match self {
            Event::InitEnd => EventKind::InitEnd,
            Event::TrainBegin => EventKind::TrainBegin,
            Event::TrainEnd => EventKind::TrainEnd,
            Event::EpochBegin => EventKind::EpochBegin,
            Event::EpochEnd => EventKind::EpochEnd,
            Event::StepBegin => EventKind::StepBegin,
            Event::SubstepEnd => EventKind::SubstepEnd,
            Event::StepEnd => EventKind::StepEnd,
            Event::Evaluate(_) => EventKind::Evaluate,
            Event::Predict(_) => EventKind::Predict,
            Event::Save(_) => EventKind::Save,
            Event::Log(_) => EventKind::Log,
            Event::PredictionStep => EventKind::PredictionStep,
            Event::PreOptimizerStep => EventKind::PreOptimizerStep,
            Event::OptimizerStep => EventKind::OptimizerStep,
            Event::Resume(_) => EventKind::Resume,
            Event::Fault(_) => EventKind::Fault,
        }
    }
}

/// Parameters by name, in model order; read only by agreement, as everything that shares a tensor. What has no gradient
/// at the moment has an undefined one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parameters<'a> {
    names: &'a [String],
    tensors: &'a [Tensor],
}

impl<'a> Parameters<'a> {
    /// One name for each tensor.
    pub fn new(names: &'a [String], tensors: &'a [Tensor]) -> Self {
        Self { names, tensors }
    }

    /// Name and tensor of each.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a Tensor)> {
        self.names.iter().map(String::as_str).zip(self.tensors)
    }
}

/// What a callback sees and may ask for.
#[derive(Debug)]
pub struct Context<'a> {
    /// The trainer's state; read only.
    pub state: &'a TrainerState,
    /// The wishes; what earlier callbacks asked for is visible.
    pub control: &'a mut Control,
    /// Current learning rate of each parameter group; empty before the optimizer exists.
    pub learning_rates: &'a [f64],
    /// Gradient norm before clipping of the last step, if it was computed.
    pub gradient_norm: Option<f64>,
    /// Seconds since `train` began.
    pub elapsed_seconds: f64,
    /// The micro-batch within the run, for plugins' progress.
    pub micro_step: u64,
    /// What is trained; in the events around the optimizer's step, the copies that it updates if there are such.
    pub parameters: Parameters<'a>,
}

/// Observes a run and may stop it, or ask for logging, evaluation and saving.
pub trait Callback {
    /// Name for messages, the summary and the audit of control changes.
    fn name(&self) -> &str;
    /// Whether `on_event` wants this event; asked once per event kind when the run is wired.
    fn wants(&self, kind: EventKind) -> bool;
    /// One event. An error ends the run.
    fn on_event(&mut self, event: Event<'_>, context: &mut Context<'_>) -> Result<()>;
    /// Values for the next log entry that the callback has collected since this was last called; the loop asks before it
    /// logs. Names are the callback's own.
    fn take_emitted(&mut self) -> Vec<(String, f64)> {
        Vec::new()
    }
    /// What an exact resumption needs of this callback; goes into checkpoints.
    fn state(&self) -> Option<serde_json::Value> {
        None
    }
    /// Continues from what [`Callback::state`] returned in an earlier run.
    fn load_state(&mut self, state: &serde_json::Value) -> Result<()> {
        let _ = state;
        Ok(())
    }
}
