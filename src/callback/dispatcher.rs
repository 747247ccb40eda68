//! The list of callbacks and the one way to call them: clear flags first, then each subscriber in order.

use anyhow::{Context as _, Result};

use super::{
    Callback, Context, Control, EVENT_KINDS, Event, EventKind, Fault, OWN_EVENT_KINDS, Parameters,
    TrainerState,
};
use crate::error::told;

/// How many kinds of events there are.
const KINDS: usize = EVENT_KINDS.len() + OWN_EVENT_KINDS.len();

/// Callbacks in call order: default flow, reporters, the user's, progress last.
#[derive(Default)]
pub struct Callbacks {
    list: Vec<Box<dyn Callback>>,
    /// Indices into `list` per event kind, so that an event nobody wants costs nothing.
    subscribers: [Vec<usize>; KINDS],
}

impl std::fmt::Debug for Callbacks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_list()
            .entries(self.list.iter().map(|callback| callback.name()))
            .finish()
    }
}

/// What the trainer shows of itself at an event; everything but the control is read only.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The trainer's state.
    pub state: &'a TrainerState,
    /// Learning rate per group.
    pub learning_rates: &'a [f64],
    /// Gradient norm before clipping of the last step.
    pub gradient_norm: Option<f64>,
    /// Seconds since training began.
    pub elapsed_seconds: f64,
    /// Micro-batches so far.
    pub micro_step: u64,
    /// What is trained.
    pub parameters: Parameters<'a>,
}

impl<'a> View<'a> {
    fn context<'c>(&self, control: &'c mut Control) -> Context<'c>
    where
        'a: 'c,
    {
        Context {
            state: self.state,
            control,
            learning_rates: self.learning_rates,
            gradient_norm: self.gradient_norm,
            elapsed_seconds: self.elapsed_seconds,
            micro_step: self.micro_step,
            parameters: self.parameters,
        }
    }
}

impl Callbacks {
    /// Appends a callback. A second one of a name is warned of, and both are called.
    pub fn push(&mut self, callback: Box<dyn Callback>) {
        let name = callback.name();
        if self.list.iter().any(|known| known.name() == name) {
            tracing::warn!("there are two callbacks {name:?} now; both are called");
        }
        self.list.push(callback);
        self.subscribe();
    }

    /// Puts a callback in the place of the first of its name; nothing if there is none.
    pub fn replace(&mut self, callback: Box<dyn Callback>) {
        let mut list = self.list.iter_mut();
        if let Some(place) = list.find(|known| known.name() == callback.name()) {
            *place = callback;
            self.subscribe();
        }
    }

    /// Takes the first callback of that name out.
    pub fn pop(&mut self, name: &str) -> Option<Box<dyn Callback>> {
        let index = self
            .list
            .iter()
            .position(|callback| callback.name() == name)?;
        let callback = self.list.remove(index);
        self.subscribe();
        Some(callback)
    }

    /// Names in call order.
    pub fn names(&self) -> Vec<String> {
        let list = self.list.iter();
        list.map(|callback| callback.name().to_owned()).collect()
    }

    fn subscribe(&mut self) {
        for kind in EVENT_KINDS.into_iter().chain(OWN_EVENT_KINDS) {
            let wanting = self.list.iter().enumerate();
            self.subscribers[kind as usize] = wanting
                .filter(|(_, callback)| callback.wants(kind))
                .map(|(index, _)| index)
                .collect();
        }
    }

    /// Whether anybody listens to an event.
    pub fn wants(&self, kind: EventKind) -> bool {
        !self.subscribers[kind as usize].is_empty()
    }

    /// Clears the flags of this event (spec 3.1), then calls its subscribers.
    pub fn call(&mut self, event: Event<'_>, view: View<'_>, control: &mut Control) -> Result<()> {
        let kind = event.kind();
        control.clear_before(kind);
        for &index in &self.subscribers[kind as usize] {
            let callback = &mut self.list[index];
            control.set_actor(callback.name(), view.state.global_step);
            callback
                .on_event(event, &mut view.context(control))
                .with_context(|| format!("callback {} failed at {kind:?}", callback.name()))?;
        }
        // What the loop itself sets from here on is nobody's wish.
        control.set_actor("", view.state.global_step);
        Ok(())
    }

    /// Tells all who want to know that the run ends with an error. A callback that fails at it is told of in the log: it hides
    /// the error from nobody. Wishes have no effect any more.
    pub fn fault(&mut self, fault: Fault<'_>, view: View<'_>) {
        let mut control = Control::default();
        for &index in &self.subscribers[EventKind::Fault as usize] {
            let callback = &mut self.list[index];
            let outcome = callback.on_event(Event::Fault(fault), &mut view.context(&mut control));
            if let Err(error) = outcome {
                let why = told(&error);
                tracing::warn!(
                    "callback {} failed at the end of a run that failed: {why}",
                    callback.name()
                );
            }
        }
    }

    /// Values that callbacks have collected for the next log entry, in call order.
    pub fn take_emitted(&mut self) -> Vec<(String, f64)> {
        self.list
            .iter_mut()
            .flat_map(|callback| callback.take_emitted())
            .collect()
    }

    /// States of all callbacks that have one, by name.
    pub fn states(&self) -> serde_json::Map<String, serde_json::Value> {
        self.list
            .iter()
            .filter_map(|callback| Some((callback.name().to_owned(), callback.state()?)))
            .collect()
    }

    /// Hands back the states of an earlier run; callbacks without one keep theirs.
    pub fn load_states(
        &mut self,
        states: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<()> {
        for callback in &mut self.list {
            if let Some(state) = states.get(callback.name()) {
                callback.load_state(state)?;
            }
        }
        Ok(())
    }
}
