//! Reporters from plugins: a [`Destination`] on the delivery thread, with a store of its own.

use serde_json::Value;
use wasmtime::component::Resource;

use super::bindings::exports::trainer::plugin::report_scalars::Block;
use super::bindings::trainer::host::types::ErrorKind;
use super::hook::Hook;
use super::instance::{Hooks, Instance, Returned};
use super::state::State;
use crate::report::{Destination, Entry, Undelivered};

/// Fresh stores that a reporter gets after traps, whatever the limit `restarts`: what it knows comes back with its token.
const RESTARTS: u64 = 3;

/// The `report-run` and `report-scalars` interfaces.
pub(super) struct Reports {
    instance: Instance,
    token: Option<String>,
    /// The begin of the run, told to each store before anything else.
    start: Option<u64>,
    /// The store that was told.
    started: Option<u64>,
}

impl Reports {
    pub(super) fn new(mut instance: Instance) -> Self {
        instance.allow_restarts(RESTARTS);
        Self {
            instance,
            token: None,
            start: None,
            started: None,
        }
    }

    /// Whether a component has a reporter.
    pub(super) fn exported(hooks: &Hooks) -> bool {
        hooks.report_run.is_some() || hooks.report_scalars.is_some()
    }

    /// One call, with the answer to the question whether it is worth to try again.
    fn call<T>(
        &mut self,
        hook: Hook,
        body: impl FnOnce(&mut wasmtime::Store<State>, &Hooks) -> Returned<T>,
    ) -> Result<T, Undelivered> {
        let mut kind = None;
        let outcome = self.instance.call(hook, |store, hooks| {
            let returned = body(store, hooks);
            if let Ok(Err(error)) = &returned {
                kind = Some(error.kind);
            }
            returned
        });
        outcome.map_err(|error| {
            match kind {
                Some(ErrorKind::Transient) => Undelivered::Later(error),
                Some(ErrorKind::Data) => Undelivered::Refused(error),
                // A guest that waited too long for its server, or stumbled over an answer.
                None if self.instance.can_restart() => Undelivered::Later(error),
                _ => Undelivered::Never(error),
            }
        })
    }

    /// Tells a store of the run before anything else, also one that follows on a trap.
    fn ensure_started(&mut self) -> Result<(), Undelivered> {
        self.instance.ready().map_err(Undelivered::Never)?;
        let generation = self.instance.generation();
        let Some(time_ms) = self.start.filter(|_| self.started != Some(generation)) else {
            return Ok(());
        };
        let token = self.token.clone();
        let told = self.call(Hook::ReportStart, |store, hooks| match &hooks.report_run {
            Some(run) => run
                .call_start(store, Resource::new_borrow(0), time_ms, token.as_deref())
                .map(|told| told.map(Some)),
            None => Ok(Ok(None)),
        })?;
        self.token = told.or(self.token.take());
        self.started = Some(generation);
        Ok(())
    }
}

impl Destination for Reports {
    fn open(&mut self, time_ms: u64, token: Option<&str>) -> Result<String, Undelivered> {
        if token.is_some() {
            self.token = token.map(str::to_owned);
        }
        self.start = Some(time_ms);
        self.started = None;
        self.ensure_started()?;
        Ok(self.token.clone().unwrap_or_default())
    }

    fn params(&mut self, params: &Value) -> Result<(), Undelivered> {
        self.ensure_started()?;
        let params = params.to_string();
        self.call(Hook::ReportParams, |store, hooks| match &hooks.report_run {
            Some(run) => run.call_params(store, &params),
            None => Ok(Ok(())),
        })
    }

    fn entries(&mut self, entries: &[Entry]) -> Result<(), Undelivered> {
        self.ensure_started()?;
        let block = block(entries);
        self.call(Hook::ReportScalars, |store, hooks| {
            match &hooks.report_scalars {
                Some(scalars) => scalars.call_scalars(store, &block),
                None => Ok(Ok(())),
            }
        })
    }

    fn finish(&mut self, time_ms: u64, status: &str) -> Result<(), Undelivered> {
        self.ensure_started()?;
        self.call(Hook::ReportFinish, |store, hooks| match &hooks.report_run {
            Some(run) => run.call_finish(store, time_ms, status),
            None => Ok(Ok(())),
        })
    }

    fn usage(&self) -> Option<String> {
        Some(self.instance.usage().to_string())
    }
}

/// One row for each value.
fn block(entries: &[Entry]) -> Block {
    let mut block = Block {
        steps: Vec::new(),
        times_ms: Vec::new(),
        names: Vec::new(),
        values: Vec::new(),
    };
    for entry in entries {
        for (name, value) in &entry.values {
            block.steps.push(entry.step);
            block.times_ms.push(entry.time_ms);
            block.names.push(name.clone());
            block.values.push(*value);
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_a_row_of_its_entry() {
        let entry = |step, values: &[(&str, f64)]| Entry {
            step,
            time_ms: 10 * step,
            values: values
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect(),
        };
        let block = block(&[
            entry(1, &[("loss", 0.5), ("epoch", 0.1)]),
            entry(2, &[]),
            entry(3, &[("loss", 0.4)]),
        ]);
        assert_eq!(block.steps, [1, 1, 3]);
        assert_eq!(block.times_ms, [10, 10, 30]);
        assert_eq!(block.names, ["loss", "epoch", "loss"]);
        assert_eq!(block.values, [0.5, 0.1, 0.4]);
    }

    #[test]
    fn an_instance_can_live_on_another_thread() {
        fn assert_send<T: Send>() {}
        assert_send::<Instance>();
    }
}
