//! The block after steps and epochs: log, evaluate, save, when they are due (spec 3.2).

use anyhow::Result;
use serde_json::{Map, Value};

use super::{Metrics, Trainer, Updates, report, round};
use crate::callback::Event;
use crate::optim::LrScheduler;

impl Trainer {
    /// Runs what the flags ask for.
    pub(super) fn block(&mut self, updates: &mut Updates<'_>) -> Result<()> {
        if self.control.should_log() && self.losses.has_steps(self.state.global_step) {
            self.log_loss(updates.scheduler)?;
        }
        let mut metrics = None;
        if self.control.should_evaluate() {
            metrics = Some(self.evaluate_in_training(updates)?);
        }
        if self.control.should_save() {
            self.save_checkpoint(updates, metrics.as_ref())?;
        }
        Ok(())
    }

    fn evaluate_in_training(&mut self, updates: &mut Updates<'_>) -> Result<Metrics> {
        let metrics = self.evaluate("eval")?;
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
        Ok(metrics)
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

/// JSON has no NaN and no infinities; the reference's readers accept the words as strings or numbers, ours as strings.
fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value)
        .map_or_else(|| Value::String(value.to_string()), Value::Number)
}
