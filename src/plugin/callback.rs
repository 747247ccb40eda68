//! Callbacks from plugins: each event goes to the interface that has it, if the component exports it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wasmtime::Store;
use wasmtime::component::Resource;

use super::artifact::Artifact;
use super::bindings::trainer::host::types::Error as GuestError;
use super::hook::Hook;
use super::instance::{Hooks, Instance, Returned, Saved};
use super::state::State;
use crate::callback::{Callback, Context, EVENT_KINDS, Event, EventKind, OWN_EVENT_KINDS};
use crate::checkpoint::json::named_numbers;
use crate::error::Failure;

/// All callback families of a component.
pub(super) struct Hooked {
    name: String,
    instance: Rc<RefCell<Instance>>,
    every_steps: u64,
    main_rank_only: bool,
    /// A state that could not be saved; told at the next event, because `state` cannot fail.
    unsaved: Cell<Option<anyhow::Error>>,
}

impl Hooked {
    pub(super) fn new(instance: Rc<RefCell<Instance>>) -> Self {
        let borrowed = instance.borrow();
        let name = borrowed.name().to_owned();
        let (every_steps, main_rank_only) = borrowed.settings().map_or((1, false), |settings| {
            (settings.every_steps, settings.main_rank_only)
        });
        drop(borrowed);
        Self {
            name,
            instance,
            every_steps,
            main_rank_only,
            unsaved: Cell::default(),
        }
    }

    /// Whether a component has a callback at all, or state, which checkpoints take from callbacks.
    pub(super) fn exported(hooks: &Hooks) -> bool {
        let mut kinds = EVENT_KINDS.iter().chain(&OWN_EVENT_KINDS);
        kinds.any(|kind| has(hooks, *kind)) || hooks.has_state()
    }

    /// Steps that the plugin asked to leave out.
    fn skips(&self, kind: EventKind, step: u64) -> bool {
        match kind {
            // These come before the step is counted.
            EventKind::StepBegin
            | EventKind::SubstepEnd
            | EventKind::PreOptimizerStep
            | EventKind::OptimizerStep => !(step + 1).is_multiple_of(self.every_steps),
            EventKind::StepEnd => !step.is_multiple_of(self.every_steps),
            _ => false,
        }
    }
}

impl Callback for Hooked {
    fn name(&self) -> &str {
        &self.name
    }

    fn wants(&self, kind: EventKind) -> bool {
        let instance = self.instance.borrow();
        if self.main_rank_only && instance.facts().rank != 0 {
            return false;
        }
        instance.hooks().is_some_and(|hooks| has(hooks, kind))
    }

    fn on_event(&mut self, event: Event<'_>, context: &mut Context<'_>) -> Result<()> {
        if let Some(error) = self.unsaved.take() {
            return Err(error);
        }
        let kind = event.kind();
        if self.every_steps > 1 && self.skips(kind, context.state.global_step) {
            return Ok(());
        }
        let mut instance = self.instance.borrow_mut();
        if kind == EventKind::Fault && instance.hooks().is_none() {
            // It was stopped, which may be the fault.
            return Ok(());
        }
        let outcome = instance.call(hook_of(kind), |store, hooks| {
            let State { view, facts, .. } = store.data_mut();
            view.begin(context);
            view.show_model(context, &facts.allowed)
                .map_err(wasmtime::Error::msg)?;
            let returned = dispatch(store, hooks, event)?;
            if returned.is_ok() {
                store.data_mut().view.apply(context.control);
            }
            Ok(returned)
        });
        match outcome {
            // The user allowed fresh stores: this event is lost, the run goes on.
            Err(error) if instance.can_restart() => {
                tracing::warn!("{error:#}");
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn state(&self) -> Option<Value> {
        let mut instance = self.instance.borrow_mut();
        let emitted = instance
            .state_mut()
            .map(|state| Pending(state.view.pending()))
            .unwrap_or_default();
        match instance.save_state() {
            Ok(None) if emitted.0.is_empty() => None,
            Ok(None) => Some(json!({ "emitted": emitted })),
            Ok(Some(Saved { version, bytes })) => {
                Some(json!({"version": version, "bytes": bytes, "emitted": emitted}))
            }
            Err(error) => {
                self.unsaved.set(Some(error));
                None
            }
        }
    }

    fn load_state(&mut self, state: &Value) -> Result<()> {
        let subject = || {
            Failure::data(format!(
                "the state of plugin `{}` in the checkpoint cannot be read",
                self.name
            ))
        };
        if let Some(emitted) = state.get("emitted") {
            let pending: Pending = serde_json::from_value(emitted.clone()).with_context(subject)?;
            if let Some(state) = self.instance.borrow_mut().state_mut() {
                state.view.restore_pending(pending.0);
            }
        }
        if state.get("bytes").is_none() && state.get("emitted").is_some() {
            return Ok(());
        }
        let bytes = serde_json::from_value(state["bytes"].clone()).with_context(subject)?;
        let version = serde_json::from_value(state["version"].clone()).with_context(subject)?;
        self.instance
            .borrow_mut()
            .restore_state(Saved { version, bytes })
    }

    fn take_emitted(&mut self) -> Vec<(String, f64)> {
        self.instance
            .borrow_mut()
            .state_mut()
            .map(|state| state.view.take_emitted())
            .unwrap_or_default()
    }
}

/// Values that wait for the next log entry, in a checkpoint.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Pending(#[serde(with = "named_numbers")] Vec<(String, f64)>);

fn has(hooks: &Hooks, kind: EventKind) -> bool {
    match kind {
        EventKind::InitEnd | EventKind::TrainBegin | EventKind::TrainEnd => hooks.train.is_some(),
        EventKind::EpochBegin | EventKind::EpochEnd => hooks.epoch.is_some(),
        EventKind::StepBegin | EventKind::StepEnd => hooks.step.is_some(),
        EventKind::SubstepEnd => hooks.substep.is_some(),
        EventKind::Evaluate | EventKind::Predict => hooks.eval.is_some(),
        EventKind::Save => hooks.checkpoint.is_some(),
        EventKind::Log => hooks.log.is_some(),
        EventKind::PredictionStep => hooks.prediction_step.is_some(),
        EventKind::PreOptimizerStep | EventKind::OptimizerStep => hooks.optimizer.is_some(),
        EventKind::Resume => hooks.resume.is_some(),
        EventKind::Fault => hooks.fault.is_some(),
    }
}

fn hook_of(kind: EventKind) -> Hook {
    match kind {
        EventKind::InitEnd => Hook::InitEnd,
        EventKind::TrainBegin => Hook::TrainBegin,
        EventKind::TrainEnd => Hook::TrainEnd,
        EventKind::EpochBegin => Hook::EpochBegin,
        EventKind::EpochEnd => Hook::EpochEnd,
        EventKind::StepBegin => Hook::StepBegin,
        EventKind::SubstepEnd => Hook::SubstepEnd,
        EventKind::StepEnd => Hook::StepEnd,
        EventKind::Evaluate => Hook::Evaluate,
        EventKind::Predict => Hook::Predict,
        EventKind::Save => Hook::Save,
        EventKind::Log => Hook::Log,
        EventKind::PredictionStep => Hook::PredictionStep,
        EventKind::PreOptimizerStep => Hook::PreOptimizerStep,
        EventKind::OptimizerStep => Hook::OptimizerStep,
        EventKind::Resume => Hook::Resume,
        EventKind::Fault => Hook::Fault,
    }
}

/// Calls the function of an event; nothing if the component does not export it.
fn dispatch(store: &mut Store<State>, hooks: &Hooks, event: Event<'_>) -> Returned<()> {
    let ctx = Resource::new_borrow(0);
    let outcome: Option<Returned<()>> = match event {
        Event::InitEnd => hooks
            .train
            .as_ref()
            .map(|hook| hook.call_on_init_end(store, ctx)),
        Event::TrainBegin => hooks
            .train
            .as_ref()
            .map(|hook| hook.call_on_train_begin(store, ctx)),
        Event::TrainEnd => hooks
            .train
            .as_ref()
            .map(|hook| hook.call_on_train_end(store, ctx)),
        Event::EpochBegin => hooks
            .epoch
            .as_ref()
            .map(|hook| hook.call_on_epoch_begin(store, ctx)),
        Event::EpochEnd => hooks
            .epoch
            .as_ref()
            .map(|hook| hook.call_on_epoch_end(store, ctx)),
        Event::StepBegin => hooks
            .step
            .as_ref()
            .map(|hook| hook.call_on_step_begin(store, ctx)),
        Event::SubstepEnd => hooks
            .substep
            .as_ref()
            .map(|hook| hook.call_on_substep_end(store, ctx)),
        Event::StepEnd => hooks
            .step
            .as_ref()
            .map(|hook| hook.call_on_step_end(store, ctx)),
        Event::Evaluate(metrics) => hooks
            .eval
            .as_ref()
            .map(|hook| hook.call_on_evaluate(store, ctx, metrics)),
        Event::Predict(metrics) => hooks
            .eval
            .as_ref()
            .map(|hook| hook.call_on_predict(store, ctx, metrics)),
        Event::Log(logs) => hooks
            .log
            .as_ref()
            .map(|hook| hook.call_on_log(store, ctx, logs)),
        Event::PredictionStep => hooks
            .prediction_step
            .as_ref()
            .map(|hook| hook.call_on_prediction_step(store, ctx)),
        Event::Save(folder) => hooks.checkpoint.as_ref().map(|hook| {
            store.data_mut().artifact = Some(Artifact::of(folder));
            hook.call_on_save(store, ctx, Resource::new_borrow(0))
        }),
        own => dispatch_own(store, hooks, own),
    };
    outcome.unwrap_or(Ok(Ok::<(), GuestError>(())))
}

/// The same for the events that the reference does not have.
fn dispatch_own(store: &mut Store<State>, hooks: &Hooks, event: Event<'_>) -> Option<Returned<()>> {
    let ctx = Resource::new_borrow(0);
    match event {
        Event::PreOptimizerStep => hooks
            .optimizer
            .as_ref()
            .map(|hook| hook.call_on_pre_optimizer_step(store, ctx)),
        Event::OptimizerStep => hooks
            .optimizer
            .as_ref()
            .map(|hook| hook.call_on_optimizer_step(store, ctx)),
        Event::Resume(folder) => hooks.resume.as_ref().map(|hook| {
            store.data_mut().artifact = Some(Artifact::of(folder));
            hook.call_on_resume(store, ctx, Resource::new_borrow(0))
        }),
        Event::Fault(fault) => hooks
            .fault
            .as_ref()
            .map(|hook| hook.call_on_fault(store, ctx, fault.kind, fault.message)),
        _ => None,
    }
}
