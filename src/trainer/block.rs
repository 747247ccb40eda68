//! The block after steps and epochs: log, evaluate, save, when they are due (spec 3.2).

use anyhow::Result;
use serde_json::{Map, Value};

use super::{Metrics, Trainer, Updates, report, round};
use crate::callback::{Control, Event};
use crate::checkpoint::rng::RngState;
use crate::optim::{LrScheduler, Phase};

impl Trainer {
    /// Runs what the flags ask for.
    pub(super) fn block(&mut self, updates: &mut Updates<'_>) -> Result<()> {
        if self.control.should_log() && self.losses.has_steps(self.state.global_step) {
            self.log_loss(updates.scheduler)?;
        }
        let mut metrics = None;
        if self.control.should_evaluate() {
            metrics = self.evaluate_in_training(updates)?;
            if metrics.is_none() {
                return Ok(());
            }
        }
        if self.control.should_save() {
            updates.optimizer.enter(Phase::Evaluation)?;
            self.save_checkpoint(updates, metrics.as_ref())?;
        }
        Ok(())
    }

    /// What a run that was stopped inside an evaluation left undone: the evaluation, and the save that may follow it.
    /// Whether it is done now.
    pub(super) fn settle(&mut self, updates: &mut Updates<'_>) -> Result<bool> {
        if self.parts.evaluation.is_empty() {
            tracing::warn!(
                "the evaluation that the stopped run owed is left out: there are no rows for it"
            );
        }
        self.control.set_evaluate(!self.parts.evaluation.is_empty());
        self.evaluation_owed = false;
        self.block(updates)?;
        Ok(!self.evaluation_owed)
    }

    /// `None`: a signal ended it. All is as it was before it, and the run that goes on begins with it.
    fn evaluate_in_training(&mut self, updates: &mut Updates<'_>) -> Result<Option<Metrics>> {
        let before = BeforeEvaluation::of(self)?;
        self.evaluation_owed = false;
        updates.optimizer.enter(Phase::Evaluation)?;
        let Some(metrics) = self.evaluate("eval")? else {
            before.restore(self)?;
            self.evaluation_owed = true;
            return Ok(None);
        };
        let best = self.config.best.as_ref().map(|best| &*best.metric);
        if let Some(name) = best {
            // Here rather than at the first save, which may be hours away.
            metrics.required(name)?;
        }
        if updates.scheduler.is_per_evaluation() {
            let value = metrics.required(best.unwrap_or("loss"))?;
            let groups = updates.optimizer.groups_mut();
            updates.scheduler.step_with_metric(groups, value);
            self.note_rates(updates.optimizer);
        }
        Ok(Some(metrics))
    }

    fn log_loss(&mut self, scheduler: &dyn LrScheduler) -> Result<()> {
        let loss = self.losses.take(self.state.global_step);
        let learning_rate = scheduler.last_rates().first().copied().unwrap_or(0.0);
        self.store_flos();
        let mut values = vec![
            ("loss".to_owned(), loss),
            ("learning_rate".to_owned(), learning_rate),
        ];
        values.append(&mut self.parts.callbacks.take_emitted());
        self.log(&mut values)
    }

    /// Adds the epoch, appends to the log history, tells reporters and callbacks.
    pub(super) fn log(&mut self, values: &mut Vec<(String, f64)>) -> Result<()> {
        if let Some(epoch) = self.state.epoch {
            values.push(("epoch".to_owned(), round(epoch, 2)));
        }
        let mut entry: Map<String, Value> = values
            .iter()
            .map(|(name, value)| (name.clone(), number(*value)))
            .collect();
        entry.insert("step".to_owned(), Value::from(self.state.global_step));
        self.state.log_history.push(entry);
        let step = self.state.global_step;
        let undone = format!("left out step {step}");
        report(&mut self.parts.reporters, &undone, |reporter| {
            reporter.scalars(step, values)
        });
        self.fire(Event::Log(values))
    }
}

/// What an evaluation changes of a run before it is complete, one of several sets being done.
struct BeforeEvaluation {
    generators: RngState,
    control: Control,
    num_changes: usize,
    num_log_entries: usize,
    /// They hear of a set that is done; with one set the pass is over then.
    callbacks: Option<Map<String, Value>>,
}

impl BeforeEvaluation {
    fn of(trainer: &Trainer) -> Result<Self> {
        Ok(Self {
            generators: RngState::capture(trainer.config.device)?,
            control: trainer.control.clone(),
            num_changes: trainer.changes.len(),
            num_log_entries: trainer.state.log_history.len(),
            callbacks: (trainer.parts.evaluation.len() > 1)
                .then(|| trainer.parts.callbacks.states()),
        })
    }

    fn restore(self, trainer: &mut Trainer) -> Result<()> {
        trainer.control = self.control;
        trainer.changes.truncate(self.num_changes);
        trainer.state.log_history.truncate(self.num_log_entries);
        if let Some(states) = &self.callbacks {
            trainer.parts.callbacks.load_states(states)?;
        }
        self.generators.restore(trainer.config.device)
    }
}

/// JSON has no NaN and no infinities; the reference's readers accept the words as strings or numbers, ours as strings.
fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value)
        .map_or_else(|| Value::String(value.to_string()), Value::Number)
}
