//! One plugin at work: its store, the hooks it exports, and the one wrapper through which every call goes: deadline,
//! counting, cleaning up, errors, and a fresh store after a trap.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tch::Tensor;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker, Resource};
use wasmtime::{Engine, Store};

use super::bindings;
use super::bindings::exports::trainer::plugin as hooks;
use super::bindings::trainer::host::tensor::NamedTensor;
use super::bindings::trainer::host::types::Error as GuestError;
use super::context::Settings;
use super::engine::TICK;
use super::fault::{Cause, Fault, HostError, Violation};
use super::hook::{self, Hook};
use super::limits::{Limit, Limits};
use super::state::{Facts, State};
use super::tensor::Tensors;
use super::text::printable;
use super::usage::{Durations, Tally, Usage};
use super::wasi;
use crate::error::{Failure, Kind};

/// A call's outcome at the boundary: a trap, an error of the guest, or a value.
pub(super) type Returned<T> = wasmtime::Result<std::result::Result<T, GuestError>>;

/// What a component exports, found out once.
#[derive(Clone)]
struct Indices {
    lifecycle: hooks::lifecycle::GuestIndices,
    stateful: Option<hooks::stateful::GuestIndices>,
    train: Option<hooks::train_hooks::GuestIndices>,
    epoch: Option<hooks::epoch_hooks::GuestIndices>,
    step: Option<hooks::step_hooks::GuestIndices>,
    substep: Option<hooks::substep_hooks::GuestIndices>,
    eval: Option<hooks::eval_hooks::GuestIndices>,
    prediction_step: Option<hooks::prediction_step_hooks::GuestIndices>,
    log: Option<hooks::log_hooks::GuestIndices>,
    optimizer: Option<hooks::optimizer_hooks::GuestIndices>,
    checkpoint: Option<hooks::checkpoint_hooks::GuestIndices>,
    resume: Option<hooks::resume_hooks::GuestIndices>,
    fault: Option<hooks::fault_hooks::GuestIndices>,
    metrics: Option<hooks::metrics::GuestIndices>,
    whole_metrics: Option<hooks::whole_metrics::GuestIndices>,
    logits: Option<hooks::logits::GuestIndices>,
    collator: Option<hooks::collator::GuestIndices>,
    loss: Option<hooks::loss::GuestIndices>,
    report_run: Option<hooks::report_run::GuestIndices>,
    report_scalars: Option<hooks::report_scalars::GuestIndices>,
}

/// The functions of one instance that can be called.
pub(super) struct Hooks {
    lifecycle: hooks::lifecycle::Guest,
    stateful: Option<hooks::stateful::Guest>,
    pub train: Option<hooks::train_hooks::Guest>,
    pub epoch: Option<hooks::epoch_hooks::Guest>,
    pub step: Option<hooks::step_hooks::Guest>,
    pub substep: Option<hooks::substep_hooks::Guest>,
    pub eval: Option<hooks::eval_hooks::Guest>,
    pub prediction_step: Option<hooks::prediction_step_hooks::Guest>,
    pub log: Option<hooks::log_hooks::Guest>,
    pub optimizer: Option<hooks::optimizer_hooks::Guest>,
    pub checkpoint: Option<hooks::checkpoint_hooks::Guest>,
    pub resume: Option<hooks::resume_hooks::Guest>,
    pub fault: Option<hooks::fault_hooks::Guest>,
    pub metrics: Option<hooks::metrics::Guest>,
    pub whole_metrics: Option<hooks::whole_metrics::Guest>,
    pub logits: Option<hooks::logits::Guest>,
    pub collator: Option<hooks::collator::Guest>,
    pub loss: Option<hooks::loss::Guest>,
    pub report_run: Option<hooks::report_run::Guest>,
    pub report_scalars: Option<hooks::report_scalars::Guest>,
}

impl Hooks {
    /// Whether there is state to be saved.
    pub(super) fn has_state(&self) -> bool {
        self.stateful.is_some()
    }
}

/// Finds an interface in a component: `None` if it is not exported, an error if it is not as the contract says.
macro_rules! find {
    ($pre:expr, $module:ident, $name:literal) => {
        match $pre
            .component()
            .get_export_index(None, concat!("trainer:plugin/", $name, "@0.1.0"))
        {
            Some(_) => Some(hooks::$module::GuestIndices::new($pre)?),
            None => None,
        }
    };
}

/// The functions of what was found.
macro_rules! load {
    ($indices:expr, $store:expr, $instance:expr, $lifecycle:expr; $($hook:ident),+) => {
        Hooks {
            lifecycle: $lifecycle,
            $($hook: match &$indices.$hook {
                Some(indices) => Some(indices.load(&mut *$store, $instance)?),
                None => None,
            },)+
        }
    };
}

impl Indices {
    fn new(pre: &InstancePre<State>) -> wasmtime::Result<Self> {
        Ok(Self {
            lifecycle: hooks::lifecycle::GuestIndices::new(pre)?,
            stateful: find!(pre, stateful, "stateful"),
            train: find!(pre, train_hooks, "train-hooks"),
            epoch: find!(pre, epoch_hooks, "epoch-hooks"),
            step: find!(pre, step_hooks, "step-hooks"),
            substep: find!(pre, substep_hooks, "substep-hooks"),
            eval: find!(pre, eval_hooks, "eval-hooks"),
            prediction_step: find!(pre, prediction_step_hooks, "prediction-step-hooks"),
            log: find!(pre, log_hooks, "log-hooks"),
            optimizer: find!(pre, optimizer_hooks, "optimizer-hooks"),
            checkpoint: find!(pre, checkpoint_hooks, "checkpoint-hooks"),
            resume: find!(pre, resume_hooks, "resume-hooks"),
            fault: find!(pre, fault_hooks, "fault-hooks"),
            metrics: find!(pre, metrics, "metrics"),
            whole_metrics: find!(pre, whole_metrics, "whole-metrics"),
            logits: find!(pre, logits, "logits"),
            collator: find!(pre, collator, "collator"),
            loss: find!(pre, loss, "loss"),
            report_run: find!(pre, report_run, "report-run"),
            report_scalars: find!(pre, report_scalars, "report-scalars"),
        })
    }

    fn load(
        &self,
        store: &mut Store<State>,
        instance: &wasmtime::component::Instance,
    ) -> wasmtime::Result<Hooks> {
        let lifecycle = self.lifecycle.load(&mut *store, instance)?;
        Ok(
            load!(self, store, instance, lifecycle; stateful, train, epoch, step, substep, eval,
            prediction_step, log, optimizer, checkpoint, resume, fault, metrics, whole_metrics, logits,
            collator, loss, report_run, report_scalars),
        )
    }
}

/// A component that is linked and can be given stores.
pub(super) struct Linked {
    engine: &'static Engine,
    pre: InstancePre<State>,
    indices: Indices,
    facts: Arc<Facts>,
    config: String,
}

impl Linked {
    /// What does not change while the plugin lives.
    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Links a component to what the host provides.
    pub(super) fn new(
        engine: &'static Engine,
        component: &Component,
        facts: Facts,
        config: String,
    ) -> Result<Self> {
        let name = facts.name.clone();
        let misfit = |error: wasmtime::Error| {
            let reason = printable(&format!("{error:#}"), 1024);
            Failure::data(format!(
                "plugin `{name}`: does not fit this program's plugin interface {}: {reason}",
                hook::API
            ))
            .hint("build it with this program's WIT packages")
        };
        let mut linker = Linker::new(engine);
        add_to_linker(&mut linker)
            .map_err(|error| anyhow::anyhow!("{error:#}"))
            .context("linking the plugin interface")?;
        let pre = linker.instantiate_pre(component).map_err(misfit)?;
        let indices = Indices::new(&pre).map_err(misfit)?;
        Ok(Self {
            engine,
            pre,
            indices,
            facts: Arc::new(facts),
            config,
        })
    }
}

fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use bindings::trainer::host;
    wasi::add_to_linker(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_sync(linker)?;
    host::types::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    host::log::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    host::tensor::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    host::rng::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    host::run::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    host::data::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    host::artifact::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    host::tokenizer::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    host::secrets::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

/// A store that has not trapped.
struct Live {
    store: Store<State>,
    hooks: Hooks,
}

/// A plugin at work.
pub(super) struct Instance {
    linked: Arc<Linked>,
    live: Option<Live>,
    /// Grows with each store, so that what belonged to an earlier one is recognised.
    generation: u64,
    counts: [u64; Hook::COUNT],
    durations: Durations,
    traps: u64,
    /// The newest state that is known, for a checkpoint or a fresh store, and the version of the plugin that made it.
    saved: Option<Saved>,
    /// Fresh stores that the kind of hook allows, whatever the limit.
    least_restarts: u64,
    /// Of stores that are gone.
    past: Past,
}

/// What `save-state` returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Saved {
    pub version: String,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Past {
    peak_memory: u64,
    reads: u64,
    dropped_lines: u64,
}

impl Instance {
    /// The first store, with `init` done.
    pub(super) fn start(linked: Arc<Linked>) -> Result<Self> {
        let mut instance = Self {
            linked,
            live: None,
            generation: 0,
            counts: [0; Hook::COUNT],
            durations: Durations::default(),
            traps: 0,
            saved: None,
            least_restarts: 0,
            past: Past::default(),
        };
        instance.renew()?;
        Ok(instance)
    }

    pub(super) fn name(&self) -> &str {
        &self.linked.facts.name
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.linked.facts
    }

    /// The number of the store in use.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the store of that number is the one in use.
    pub(super) fn is_running(&self, generation: u64) -> bool {
        self.live.is_some() && self.generation == generation
    }

    /// Whether it was stopped and may have a fresh store.
    pub(super) fn can_restart(&self) -> bool {
        self.live.is_none() && self.restarts() < self.max_restarts()
    }

    /// At least so many fresh stores are allowed.
    pub(super) fn allow_restarts(&mut self, least: u64) {
        self.least_restarts = least;
    }

    fn max_restarts(&self) -> u64 {
        self.linked.facts.limits.restarts.max(self.least_restarts)
    }

    fn restarts(&self) -> u64 {
        self.generation.saturating_sub(1)
    }

    /// What `init` asked for.
    pub(super) fn settings(&self) -> Option<&Settings> {
        self.live.as_ref().map(|live| &live.store.data().settings)
    }

    /// The hooks of the store in use.
    pub(super) fn hooks(&self) -> Option<&Hooks> {
        self.live.as_ref().map(|live| &live.hooks)
    }

    /// The state of the store in use.
    pub(super) fn state_mut(&mut self) -> Option<&mut State> {
        self.live.as_mut().map(|live| live.store.data_mut())
    }

    /// Makes sure that there is a store that can be called; after a trap that takes a restart.
    pub(super) fn ready(&mut self) -> Result<()> {
        if self.live.is_some() {
            return Ok(());
        }
        if !self.can_restart() {
            let (name, restarts) = (self.name(), self.max_restarts());
            let text = format!(
                "plugin `{name}`: was stopped {} times; the limit `restarts` is {restarts}",
                self.traps
            );
            let raised = self.linked.facts.limits.raised(Limit::Restarts, None);
            let hint = format!("raise it with --plugin_limit {name}.restarts={raised}");
            return Err(Failure::new(Kind::Plugin, text).hint(hint).into());
        }
        tracing::warn!("plugin `{}`: starting it again", self.name());
        self.renew()
    }

    /// One call of a hook: `body` calls the guest and takes over what came of it.
    pub(super) fn call<T>(
        &mut self,
        hook: Hook,
        body: impl FnOnce(&mut Store<State>, &Hooks) -> Returned<T>,
    ) -> Result<T> {
        self.ready()?;
        let begin = Instant::now();
        let outcome = self.run(hook, body);
        self.durations.add(begin.elapsed());
        outcome
    }

    /// The error of a call whose result came but cannot be used.
    pub(super) fn refuse(&self, hook: Hook, reason: String) -> Failure {
        self.fault(hook, String::new(), None)
            .explain(Cause::Result(reason))
    }

    /// The same for a result that is over a limit.
    pub(super) fn over(&self, hook: Hook, violation: Violation) -> Failure {
        self.fault(hook, String::new(), None)
            .explain(Cause::Limit(violation))
    }

    /// What the plugin wants to find again when the run is resumed; `None` if it has no state.
    pub(super) fn save_state(&mut self) -> Result<Option<Saved>> {
        if self.hooks().is_none_or(|hooks| hooks.stateful.is_none()) {
            return Ok(None);
        }
        let bytes = self.run(Hook::SaveState, |store, hooks| match &hooks.stateful {
            Some(stateful) => stateful.call_save_state(store),
            None => Ok(Ok(Vec::new())),
        })?;
        if bytes.len() as u64 > self.linked.facts.limits.state {
            return Err(self
                .over(
                    Hook::SaveState,
                    Violation::bytes(Limit::State, bytes.len() as u64),
                )
                .into());
        }
        self.saved = Some(Saved {
            version: self.linked.facts.version.clone(),
            bytes,
        });
        Ok(self.saved.clone())
    }

    /// Hands a state back.
    pub(super) fn restore_state(&mut self, saved: Saved) -> Result<()> {
        self.ready()?;
        self.run(Hook::RestoreState, |store, hooks| match &hooks.stateful {
            Some(stateful) => stateful.call_restore_state(store, &saved.version, &saved.bytes),
            None => Ok(Ok(())),
        })?;
        self.saved = Some(saved);
        Ok(())
    }

    /// The last call of a run that ended well.
    pub(super) fn close(&mut self) -> Result<()> {
        if self.live.is_none() {
            return Ok(());
        }
        self.run(Hook::Close, |store, hooks| {
            hooks.lifecycle.call_close(store)
        })
    }

    /// What it has cost so far.
    pub(super) fn tally(&self) -> Tally {
        let state = self.live.as_ref().map(|live| live.store.data());
        Tally {
            durations: self.durations.clone(),
            peak_memory: self
                .past
                .peak_memory
                .max(state.map_or(0, |state| state.meter.peak())),
            traps: self.traps,
            reads: self.past.reads + state.map_or(0, |state| state.tensors.reads()),
            restarts: self.restarts(),
            dropped_lines: self.past.dropped_lines + state.map_or(0, |state| state.log.dropped()),
        }
    }

    /// The same, summed up.
    pub(super) fn usage(&self) -> Usage {
        self.tally().usage(self.name())
    }

    fn renew(&mut self) -> Result<()> {
        self.counts[Hook::Instantiate as usize] += 1;
        self.generation += 1;
        let linked = self.linked.clone();
        let Linked {
            engine,
            pre,
            indices,
            facts,
            config,
        } = &*linked;
        let state = State::new(facts.clone()).map_err(|error| {
            let text = format!(
                "plugin `{}`: its folders cannot be opened: {error:#}",
                facts.name
            );
            Failure::new(Kind::Io, text)
        })?;
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.meter);
        store.set_hostcall_fuel(usize::try_from(facts.limits.transfer).unwrap_or(usize::MAX));
        store.set_epoch_deadline(ticks(facts.limits.init_time));
        let made = pre
            .instantiate(&mut store)
            .and_then(|instance| indices.load(&mut store, &instance));
        match made {
            Ok(hooks) => self.live = Some(Live { store, hooks }),
            Err(error) => return Err(self.bury(Hook::Instantiate, store, error).into()),
        }
        let outcome = self.run(Hook::Init, |store, hooks| {
            hooks.lifecycle.call_init(
                store,
                Resource::new_borrow(0),
                Resource::new_borrow(0),
                config,
            )
        });
        if outcome.is_err() {
            self.live = None;
        }
        outcome?;
        // A fresh store takes up where the last known state was.
        self.saved
            .take()
            .map_or(Ok(()), |saved| self.restore_state(saved))
    }

    fn run<T>(
        &mut self,
        hook: Hook,
        body: impl FnOnce(&mut Store<State>, &Hooks) -> Returned<T>,
    ) -> Result<T> {
        self.counts[hook as usize] += 1;
        let Some(Live { store, hooks }) = self.live.as_mut() else {
            return Err(self
                .refuse(hook, "the plugin is not running".to_owned())
                .into());
        };
        let time = time_of(&self.linked.facts.limits, hook);
        store.set_epoch_deadline(ticks(time));
        store.data_mut().begin_call(hook, time);
        // What guests compute is part of a graph only where it becomes the loss.
        let returned = match hook.is_differentiated() {
            true => body(store, hooks),
            false => tch::no_grad(|| body(store, hooks)),
        };
        match returned {
            Ok(Ok(value)) => {
                store.data_mut().end_call();
                Ok(value)
            }
            Ok(Err(error)) => {
                let violation = store.data_mut().take_violation();
                store.data_mut().end_call();
                Err(self
                    .fault(hook, String::new(), violation)
                    .explain(Cause::Guest(error))
                    .into())
            }
            Err(error) => match self.live.take() {
                Some(live) => Err(self.bury(hook, live.store, error).into()),
                None => Err(self
                    .refuse(hook, "the plugin is not running".to_owned())
                    .into()),
            },
        }
    }

    /// A store that trapped cannot be entered again: what it knew is kept, then it is dropped.
    fn bury(&mut self, hook: Hook, mut store: Store<State>, error: wasmtime::Error) -> Failure {
        self.traps += 1;
        let state = store.data_mut();
        self.past.peak_memory = self.past.peak_memory.max(state.meter.peak());
        self.past.reads += state.tensors.reads();
        self.past.dropped_lines += state.log.dropped();
        let output = state.wasi.output.take().unwrap_or_default();
        let violation = state.take_violation();
        self.fault(hook, output, violation)
            .explain(Cause::Trap(error))
    }

    fn fault(&self, hook: Hook, output: String, violation: Option<Violation>) -> Fault<'_> {
        let Facts { name, limits, .. } = &*self.linked.facts;
        Fault {
            plugin: name,
            hook,
            call: self.counts[hook as usize],
            limits,
            violation,
            output,
        }
    }
}

/// The tensors that a hook returned, by name: the host's again.
pub(super) fn taken_back(
    tensors: &mut Tensors,
    named: Vec<NamedTensor>,
) -> Returned<Vec<(String, Tensor)>> {
    let taken: std::result::Result<Vec<_>, HostError> = named
        .into_iter()
        .map(|entry| Ok((entry.name, tensors.take_back(entry.value)?)))
        .collect();
    returned(taken)
}

/// What the host did for a hook as if the hook had done it.
pub(super) fn returned<T>(outcome: std::result::Result<T, HostError>) -> Returned<T> {
    match outcome {
        Ok(value) => Ok(Ok(value)),
        Err(HostError::Guest(error)) => Ok(Err(error)),
        Err(HostError::Trap(error)) => Err(error),
    }
}

/// A hook that is called and was not exported.
pub(super) fn absent() -> wasmtime::Error {
    wasmtime::Error::msg("the hook is not exported")
}

fn time_of(limits: &Limits, hook: Hook) -> Duration {
    match hook.time_limit() {
        Limit::InitTime => limits.init_time,
        Limit::StepTime => limits.step_time,
        Limit::ReportTime => limits.report_time,
        _ => limits.time,
    }
}

/// Epochs until a deadline; one more, because the current one has partly passed.
fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos() / TICK.as_nanos()).unwrap_or(u64::MAX - 1) + 1
}
