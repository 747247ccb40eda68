//! `run`, `ctx` and `setup`: what a guest sees of the run and what it may ask of it.
//!
//! A store outlives a hook call and the trainer's state does not belong to it, so a call begins by copying the few
//! numbers that `ctx` shows and ends by applying the wishes that were made.

use std::collections::HashMap;

use serde_json::Value;
use tch::Tensor;
use wasmtime::component::Resource;

use super::allowed::Allowed;
use super::bindings::trainer::host::run::{self, Progress};
use super::bindings::trainer::host::types::Better;
use super::fault::HostError;
use super::rng;
use super::state::State;
use super::tensor::{self, Tensors};
use super::text::{is_unsafe, printable};
use crate::callback::{Context, Control, TrainerState};

/// Longest reason that is kept.
const MAX_REASON: usize = 1024;
/// Bytes of a name that a plugin chooses.
pub(super) const MAX_NAME: usize = 128;
/// Values emitted between two log entries.
const MAX_EMITTED: usize = 1000;
/// Metrics declared in `init`.
const MAX_DECLARED: usize = 1000;

/// Marks the `run` resource; there is one.
#[derive(Debug)]
pub enum Run {}
/// Marks the `ctx` resource; there is one per call, and a borrow cannot outlive it.
#[derive(Debug)]
pub enum Ctx {}
/// Marks the `setup` resource; there is one, in `init`.
#[derive(Debug)]
pub enum Setup {}

/// What `init` asked for.
#[derive(Debug)]
pub(super) struct Settings {
    pub every_steps: u64,
    pub main_rank_only: bool,
    pub declared: Vec<Declared>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            every_steps: 1,
            main_rank_only: false,
            declared: Vec::new(),
        }
    }
}

/// A metric that a plugin announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The name it will return or emit.
    pub name: String,
    /// The unit for dashboards, may be empty.
    pub unit: String,
    /// Whether a higher value is better; `None`: neither.
    pub higher_is_better: Option<bool>,
}

/// The five flags, in the order of [`Control`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flags {
    training_stop: bool,
    epoch_stop: bool,
    save: bool,
    evaluate: bool,
    log: bool,
}

impl Flags {
    fn of(control: &Control) -> Self {
        Self {
            training_stop: control.should_training_stop(),
            epoch_stop: control.should_epoch_stop(),
            save: control.should_save(),
            evaluate: control.should_evaluate(),
            log: control.should_log(),
        }
    }
}

#[derive(Debug)]
enum Emitted {
    Number(f64),
    /// A scalar that is read when the log entry is written.
    Scalar(Tensor),
}

impl Emitted {
    fn read(&self) -> f64 {
        match self {
            Emitted::Number(number) => *number,
            Emitted::Scalar(tensor) => tensor.f_double_value(&[]).unwrap_or(f64::NAN),
        }
    }
}

/// What the current call shows and what it was asked for.
#[derive(Debug, Default)]
pub(super) struct View {
    progress: Option<Progress>,
    best_metric: Option<f64>,
    learning_rates: Vec<f64>,
    gradient_norm: Option<f64>,
    flags: Flags,
    /// Whether a method has touched the flags in this call.
    changed: bool,
    training_reason: Option<String>,
    epoch_reason: Option<String>,
    /// Parameters, and those of them that have a gradient with it; only for plugins that may read them.
    parameters: Vec<(String, Tensor)>,
    gradients: Vec<(String, Tensor)>,
    latest: HashMap<String, f64>,
    seen_entries: usize,
    emitted: Vec<(String, Emitted)>,
}

impl View {
    /// Takes over what the call shows.
    pub(super) fn begin(&mut self, context: &Context<'_>) {
        let state = context.state;
        self.progress = Some(Progress {
            global_step: state.global_step,
            max_steps: state.max_steps,
            micro_step: context.micro_step,
            epoch: state.epoch.unwrap_or(0.0),
            total_epochs: state.num_train_epochs as f64,
            elapsed_ms: (context.elapsed_seconds * 1e3) as u64,
        });
        self.best_metric = state.best_metric;
        self.learning_rates.clear();
        self.learning_rates
            .extend_from_slice(context.learning_rates);
        self.gradient_norm = context.gradient_norm;
        self.flags = Flags::of(context.control);
        self.changed = false;
        (self.training_reason, self.epoch_reason) = (None, None);
        self.read_new_entries(state);
    }

    /// Shares what the plugin may read of the model; nothing is copied.
    pub(super) fn show_model(
        &mut self,
        context: &Context<'_>,
        allowed: &Allowed,
    ) -> Result<(), tch::TchError> {
        if allowed.parameters {
            let parameters = context.parameters.iter();
            let share = |(name, tensor): (&str, &Tensor)| (name.to_owned(), tensor.shallow_clone());
            self.parameters = parameters.map(share).collect();
        }
        if allowed.gradients {
            self.gradients.clear();
            for (name, tensor) in context.parameters.iter() {
                let gradient = tensor.f_grad()?;
                if gradient.defined() {
                    self.gradients.push((name.to_owned(), gradient));
                }
            }
        }
        Ok(())
    }

    /// Lets go of what only the call showed.
    pub(super) fn end(&mut self) {
        self.parameters.clear();
        self.gradients.clear();
    }

    /// Makes the wishes of a call that ended well.
    pub(super) fn apply(&mut self, control: &mut Control) {
        if !self.changed {
            return;
        }
        let before = Flags::of(control);
        if let Some(reason) = self.training_reason.take() {
            control.stop_training(&reason);
        }
        if let Some(reason) = self.epoch_reason.take() {
            control.stop_epoch(&reason);
        }
        if self.flags.save != before.save {
            control.set_save(self.flags.save);
        }
        if self.flags.evaluate != before.evaluate {
            control.set_evaluate(self.flags.evaluate);
        }
        if self.flags.log != before.log {
            control.set_log(self.flags.log);
        }
    }

    /// The values that were emitted since the last time this was asked.
    pub(super) fn take_emitted(&mut self) -> Vec<(String, f64)> {
        let pending = self.pending();
        self.emitted.clear();
        pending
    }

    /// The values that wait for the next log entry, for a checkpoint.
    pub(super) fn pending(&self) -> Vec<(String, f64)> {
        let emitted = self.emitted.iter();
        emitted
            .map(|(name, value)| (name.clone(), value.read()))
            .collect()
    }

    /// Goes on with [`Self::pending`] of an earlier run.
    pub(super) fn restore_pending(&mut self, pending: Vec<(String, f64)>) {
        let number = |(name, value)| (name, Emitted::Number(value));
        self.emitted = pending.into_iter().map(number).collect();
    }

    /// The log history only grows, except when another training begins: then it is read anew.
    fn read_new_entries(&mut self, state: &TrainerState) {
        let entries = &state.log_history;
        if entries.len() < self.seen_entries {
            self.latest.clear();
            self.seen_entries = 0;
        }
        for entry in &entries[self.seen_entries..] {
            let numbers = entry
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)));
            self.latest.extend(numbers);
        }
        self.seen_entries = entries.len();
    }

    fn emit(&mut self, name: String, value: Emitted) -> Result<(), HostError> {
        check_name(&name).map_err(HostError::data)?;
        if let Some(entry) = self.emitted.iter_mut().find(|(known, _)| *known == name) {
            entry.1 = value;
            return Ok(());
        }
        if self.emitted.len() == MAX_EMITTED {
            return Err(HostError::limit(format!(
                "more than {MAX_EMITTED} names emitted between two log entries"
            )));
        }
        self.emitted.push((name, value));
        Ok(())
    }
}

/// Whether the name of a metric that a plugin chose can be shown and stored.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    check_named("metric", name)
}

/// The same for the name of something else.
pub(super) fn check_named(what: &str, name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("a {what} has an empty name"));
    }
    if name.len() > MAX_NAME {
        return Err(format!(
            "the {what} name `{}` is longer than {MAX_NAME} bytes",
            printable(name, 40)
        ));
    }
    if name.chars().any(is_unsafe) {
        return Err(format!(
            "the {what} name `{}` has control characters",
            printable(name, MAX_NAME)
        ));
    }
    Ok(())
}

/// Handles to the tensors whose names match.
fn lend(
    tensors: &mut Tensors,
    named: &[(String, Tensor)],
    pattern: &str,
) -> Result<Vec<(String, Resource<tensor::Handle>)>, HostError> {
    let known = glob::Pattern::new(pattern).map_err(|error| {
        HostError::data(format!(
            "the pattern `{}` cannot be read: {error}",
            printable(pattern, MAX_NAME)
        ))
    })?;
    named
        .iter()
        .filter(|(name, _)| known.matches(name))
        .map(|(name, tensor)| Ok((name.clone(), tensors.lend(tensor)?)))
        .collect()
}

impl run::Host for State {}

impl run::HostRun for State {
    fn id(&mut self, _: Resource<Run>) -> wasmtime::Result<String> {
        Ok(self.facts.id.clone())
    }

    fn name(&mut self, _: Resource<Run>) -> wasmtime::Result<String> {
        Ok(self.facts.name.clone())
    }

    fn rank(&mut self, _: Resource<Run>) -> wasmtime::Result<u32> {
        Ok(self.facts.rank)
    }

    fn world_size(&mut self, _: Resource<Run>) -> wasmtime::Result<u32> {
        Ok(self.facts.world_size)
    }

    fn is_main(&mut self, _: Resource<Run>) -> wasmtime::Result<bool> {
        Ok(self.facts.rank == 0)
    }

    fn arg(&mut self, _: Resource<Run>, name: String) -> wasmtime::Result<Option<String>> {
        Ok(self.facts.arguments.get(&name).map(Value::to_string))
    }

    fn host_version(&mut self, _: Resource<Run>) -> wasmtime::Result<String> {
        Ok(env!("CARGO_PKG_VERSION").to_owned())
    }

    fn has(&mut self, _: Resource<Run>, feature: String) -> wasmtime::Result<bool> {
        Ok(super::hook::CALLED.contains(&feature.as_str()))
    }

    fn drop(&mut self, _: Resource<Run>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl run::HostCtx for State {
    fn progress(&mut self, _: Resource<Ctx>) -> wasmtime::Result<Progress> {
        self.view
            .progress
            .ok_or_else(|| wasmtime::Error::msg("no call is in progress"))
    }

    fn metric(&mut self, _: Resource<Ctx>, name: String) -> wasmtime::Result<Option<f64>> {
        Ok(self.view.latest.get(&name).copied())
    }

    fn best_metric(&mut self, _: Resource<Ctx>) -> wasmtime::Result<Option<f64>> {
        Ok(self.view.best_metric)
    }

    fn learning_rates(&mut self, _: Resource<Ctx>) -> wasmtime::Result<Vec<f64>> {
        Ok(self.view.learning_rates.clone())
    }

    fn gradient_norm(&mut self, _: Resource<Ctx>) -> wasmtime::Result<Option<f64>> {
        Ok(self.view.gradient_norm)
    }

    fn parameters(
        &mut self,
        _: Resource<Ctx>,
        pattern: String,
    ) -> Result<Vec<(String, Resource<tensor::Handle>)>, HostError> {
        if !self.facts.allowed.parameters {
            return Err(HostError::not_requested("parameters"));
        }
        lend(&mut self.tensors, &self.view.parameters, &pattern)
    }

    fn gradients(
        &mut self,
        _: Resource<Ctx>,
        pattern: String,
    ) -> Result<Vec<(String, Resource<tensor::Handle>)>, HostError> {
        if !self.facts.allowed.gradients {
            return Err(HostError::not_requested("gradients"));
        }
        lend(&mut self.tensors, &self.view.gradients, &pattern)
    }

    fn rng(
        &mut self,
        _: Resource<Ctx>,
        purpose: String,
    ) -> wasmtime::Result<Resource<rng::Handle>> {
        let step = self
            .view
            .progress
            .map_or(0, |progress| progress.global_step);
        Ok(self
            .wasi
            .table
            .push(rng::Handle::new(&self.facts.random_key, &purpose, step))?)
    }

    fn is_stopping(&mut self, _: Resource<Ctx>) -> wasmtime::Result<bool> {
        Ok(self.view.flags.training_stop)
    }

    fn stop_training(&mut self, _: Resource<Ctx>, reason: String) -> Result<(), HostError> {
        let view = &mut self.view;
        (view.flags.training_stop, view.changed) = (true, true);
        view.training_reason = Some(printable(&reason, MAX_REASON));
        Ok(())
    }

    fn stop_epoch(&mut self, _: Resource<Ctx>, reason: String) -> Result<(), HostError> {
        let view = &mut self.view;
        (view.flags.epoch_stop, view.changed) = (true, true);
        view.epoch_reason = Some(printable(&reason, MAX_REASON));
        Ok(())
    }

    fn saves(&mut self, _: Resource<Ctx>) -> wasmtime::Result<bool> {
        Ok(self.view.flags.save)
    }

    fn set_save(&mut self, _: Resource<Ctx>, on: bool) -> Result<(), HostError> {
        (self.view.flags.save, self.view.changed) = (on, true);
        Ok(())
    }

    fn evaluates(&mut self, _: Resource<Ctx>) -> wasmtime::Result<bool> {
        Ok(self.view.flags.evaluate)
    }

    fn set_evaluate(&mut self, _: Resource<Ctx>, on: bool) -> Result<(), HostError> {
        (self.view.flags.evaluate, self.view.changed) = (on, true);
        Ok(())
    }

    fn logs(&mut self, _: Resource<Ctx>) -> wasmtime::Result<bool> {
        Ok(self.view.flags.log)
    }

    fn set_log(&mut self, _: Resource<Ctx>, on: bool) -> Result<(), HostError> {
        (self.view.flags.log, self.view.changed) = (on, true);
        Ok(())
    }

    fn emit(&mut self, _: Resource<Ctx>, name: String, value: f64) -> Result<(), HostError> {
        self.view.emit(name, Emitted::Number(value))
    }

    fn emit_tensor(
        &mut self,
        _: Resource<Ctx>,
        name: String,
        value: Resource<tensor::Handle>,
    ) -> Result<(), HostError> {
        let tensor = self.tensors.share(&value)?;
        if tensor.numel() != 1 {
            return Err(HostError::data(format!(
                "a tensor of shape {:?} is not one value",
                tensor.size()
            )));
        }
        // A copy, because the operand may be a piece of something that changes or is large.
        let mut copy = Tensor::f_empty([0_i64; 0], (tensor.f_kind()?, tensor.device()))?;
        copy.f_copy_(&tensor.f_detach()?.f_reshape([0_i64; 0])?)?;
        self.view.emit(name, Emitted::Scalar(copy))
    }

    fn drop(&mut self, _: Resource<Ctx>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl run::HostSetup for State {
    fn every_steps(&mut self, _: Resource<Setup>, n: u32) -> wasmtime::Result<()> {
        self.settings.every_steps = u64::from(n.max(1));
        Ok(())
    }

    fn main_rank_only(&mut self, _: Resource<Setup>) -> wasmtime::Result<()> {
        self.settings.main_rank_only = true;
        Ok(())
    }

    fn declare_metric(
        &mut self,
        _: Resource<Setup>,
        name: String,
        unit: String,
        better: Better,
    ) -> wasmtime::Result<()> {
        check_name(&name).map_err(wasmtime::Error::msg)?;
        if self.settings.declared.len() == MAX_DECLARED {
            return Err(wasmtime::Error::msg(format!(
                "more than {MAX_DECLARED} metrics declared"
            )));
        }
        let higher_is_better = match better {
            Better::High => Some(true),
            Better::Low => Some(false),
            Better::Neither => None,
        };
        self.settings.declared.push(Declared {
            name,
            unit: printable(&unit, MAX_NAME),
            higher_is_better,
        });
        Ok(())
    }

    fn drop(&mut self, _: Resource<Setup>) -> wasmtime::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::callback::Parameters;

    fn context<'a>(state: &'a TrainerState, control: &'a mut Control) -> Context<'a> {
        Context {
            state,
            control,
            learning_rates: &[0.1],
            gradient_norm: None,
            elapsed_seconds: 1.5,
            micro_step: 4,
            parameters: Parameters::default(),
        }
    }

    #[test]
    fn only_wishes_that_were_made_are_applied_and_with_their_reason() {
        let state = TrainerState::new();
        let mut control = Control::default();
        control.set_log(true);
        control.set_actor("plugin", 7);
        let mut view = View::default();
        view.begin(&context(&state, &mut control));
        view.apply(&mut control);
        assert!(control.take_changes().is_empty());
        view.begin(&context(&state, &mut control));
        (view.flags.save, view.flags.training_stop, view.changed) = (true, true, true);
        view.training_reason = Some("enough".to_owned());
        view.apply(&mut control);
        let changes: Vec<_> = control
            .take_changes()
            .into_iter()
            .map(|change| (change.wish, change.on, change.reason))
            .collect();
        assert_eq!(
            changes,
            [
                ("stop_training", true, "enough".to_owned()),
                ("save", true, String::new())
            ]
        );
        assert!(control.should_log());
    }

    #[test]
    fn the_newest_logged_value_is_seen_and_a_new_history_is_read_anew() {
        let entry = |value: f64| {
            json!({"eval_loss": value, "name": "x"})
                .as_object()
                .expect("an object")
                .clone()
        };
        let mut state = TrainerState::new();
        let mut control = Control::default();
        let mut view = View::default();
        state.log_history = vec![entry(3.0), entry(2.0)];
        view.begin(&context(&state, &mut control));
        assert_eq!(view.latest.get("eval_loss"), Some(&2.0));
        state.log_history.push(entry(1.0));
        view.begin(&context(&state, &mut control));
        assert_eq!(view.latest.get("eval_loss"), Some(&1.0));
        state.log_history.clear();
        view.begin(&context(&state, &mut control));
        assert!(view.latest.is_empty());
    }

    #[test]
    fn what_waits_for_a_log_entry_is_saved_and_restored() {
        let mut view = View::default();
        for (name, value) in [("a", 1.0), ("b", f64::INFINITY)] {
            view.emit(name.to_owned(), Emitted::Number(value))
                .expect("fine");
        }
        let pending = view.pending();
        let mut other = View::default();
        other.restore_pending(pending.clone());
        assert_eq!(other.take_emitted(), pending);
        assert!(other.pending().is_empty());
        assert_eq!(view.take_emitted(), pending, "saving takes nothing away");
    }

    #[test]
    fn emitted_names_are_checked_and_the_last_value_wins() {
        let mut view = View::default();
        view.emit("a".to_owned(), Emitted::Number(1.0))
            .expect("fine");
        view.emit("a".to_owned(), Emitted::Number(2.0))
            .expect("fine");
        for bad in ["", "a\nb", "\u{202e}a", &"x".repeat(MAX_NAME + 1)] {
            assert!(
                view.emit(bad.to_owned(), Emitted::Number(0.0)).is_err(),
                "{bad:?}"
            );
        }
        assert_eq!(view.take_emitted(), [("a".to_owned(), 2.0)]);
        for number in 0..MAX_EMITTED {
            view.emit(number.to_string(), Emitted::Number(0.0))
                .expect("fits");
        }
        assert!(
            view.emit("one more".to_owned(), Emitted::Number(0.0))
                .is_err()
        );
    }
}
