//! `TrainerControl`: the five wishes, who made them, and when they are cleared (spec 3.1).

use super::EventKind;

/// A wish that a callback changed, for the audit that the run keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Callback or plugin that asked.
    pub by: String,
    /// `stop_training`, `stop_epoch`, `save`, `evaluate` or `log`.
    pub wish: &'static str,
    /// The value set.
    pub on: bool,
    /// The reason given, may be empty.
    pub reason: String,
    /// Optimizer step at which it was asked.
    pub step: u64,
}

/// The five flags of `TrainerControl`. Fields are read by the loop; callbacks set them through the methods, which record
/// who asked and why.
#[derive(Clone, Debug, Default)]
pub struct Control {
    should_training_stop: bool,
    should_epoch_stop: bool,
    should_save: bool,
    should_evaluate: bool,
    should_log: bool,
    changes: Vec<Change>,
    actor: String,
    step: u64,
}

impl Control {
    /// Clears what the dispatcher clears **before** the callbacks of an event are called.
    pub fn clear_before(&mut self, kind: EventKind) {
        match kind {
            EventKind::TrainBegin => self.should_training_stop = false,
            EventKind::EpochBegin => self.should_epoch_stop = false,
            EventKind::StepBegin => {
                self.should_log = false;
                self.should_evaluate = false;
                self.should_save = false;
            }
            EventKind::Log => self.should_log = false,
            EventKind::Evaluate => self.should_evaluate = false,
            EventKind::Save => self.should_save = false,
            _ => {}
        }
    }

    /// Names who makes the wishes that follow; the dispatcher calls it before each callback.
    pub fn set_actor(&mut self, actor: &str, step: u64) {
        if self.actor != actor {
            self.actor.clear();
            self.actor.push_str(actor);
        }
        self.step = step;
    }

    /// Whether training is to end after this step.
    pub fn should_training_stop(&self) -> bool {
        self.should_training_stop
    }

    /// Whether the epoch is to end after this step.
    pub fn should_epoch_stop(&self) -> bool {
        self.should_epoch_stop
    }

    /// Whether a checkpoint is due.
    pub fn should_save(&self) -> bool {
        self.should_save
    }

    /// Whether an evaluation is due.
    pub fn should_evaluate(&self) -> bool {
        self.should_evaluate
    }

    /// Whether a log entry is due.
    pub fn should_log(&self) -> bool {
        self.should_log
    }

    /// Ends training after this step. Cannot be taken back by a later callback of the same event.
    pub fn stop_training(&mut self, reason: &str) {
        self.record("stop_training", self.should_training_stop, true, reason);
        self.should_training_stop = true;
    }

    /// Ends the epoch after this step.
    pub fn stop_epoch(&mut self, reason: &str) {
        self.record("stop_epoch", self.should_epoch_stop, true, reason);
        self.should_epoch_stop = true;
    }

    /// Asks for a checkpoint, or takes the wish back.
    pub fn set_save(&mut self, on: bool) {
        self.record("save", self.should_save, on, "");
        self.should_save = on;
    }

    /// Asks for an evaluation, or takes the wish back.
    pub fn set_evaluate(&mut self, on: bool) {
        self.record("evaluate", self.should_evaluate, on, "");
        self.should_evaluate = on;
    }

    /// Asks for a log entry, or takes the wish back.
    pub fn set_log(&mut self, on: bool) {
        self.record("log", self.should_log, on, "");
        self.should_log = on;
    }

    /// Whether somebody changed a flag since the changes were taken.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Takes the recorded changes out.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn record(&mut self, wish: &'static str, old: bool, on: bool, reason: &str) {
        // The default flow's own schedule is not worth an audit entry: only a changed value by somebody with a name is.
        if old != on && !self.actor.is_empty() {
            let (by, step) = (self.actor.clone(), self.step);
            self.changes.push(Change {
                by,
                wish,
                on,
                reason: reason.to_owned(),
                step,
            });
        }
    }
}
