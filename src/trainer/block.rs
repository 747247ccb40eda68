//! The block after steps and epochs: log, evaluate, save, when they are due (spec 3.2).

use anyhow::Result;
use serde_json::{Map, Value};

use super::{Metrics, Trainer, round};
use crate::callback::Event;
use crate::error::told;
use crate::optim::{LrScheduler, Optimizer};

impl Trainer {
    /// Runs what the flags ask for.
    pub(super) fn block(
        &mut self,
        optimizer: &mut dyn Optimizer,
        scheduler: &mut dyn LrScheduler,
    ) -> Result<()> {
        if self.control.should_log() && self.losses.has_steps(self.state.global_step) {
            self.log_loss(scheduler)?;
        }
        let mut metrics = None;
        if self.control.should_evaluate() {
            let evaluated = self.evaluate("eval")?;
            if scheduler.is_per_evaluation() {
                self.step_plateau(optimizer, scheduler, &evaluated)?;
            }
            metrics = Some(evaluated);
        }
        if self.control.should_save() {
            self.save_checkpoint(optimizer, scheduler, metrics.as_ref())?;
        }
        Ok(())
    }

    fn log_loss(&mut self, scheduler: &dyn LrScheduler) -> Result<()> {
        let loss = self.losses.take(self.state.global_step);
        let learning_rate = scheduler.last_rates().first().copied().unwrap_or(0.0);
        self.state.total_flos += std::mem::take(&mut self.flos_since_log);
        let mut values = vec![
            ("loss".to_owned(), loss),
            ("learning_rate".to_owned(), learning_rate),
        ];
        values.append(&mut self.parts.callbacks.take_emitted());
        self.log(&mut values)
    }

    fn step_plateau(
        &mut self,
        optimizer: &mut dyn Optimizer,
        scheduler: &mut dyn LrScheduler,
        metrics: &Metrics,
    ) -> Result<()> {
        let metric = self
            .config
            .best
            .as_ref()
            .map_or("loss", |best| &best.metric);
        let value = metrics.required(metric)?;
        scheduler.step_with_metric(optimizer.groups_mut(), value);
        self.learning_rates = optimizer
            .groups()
            .iter()
            .map(|group| group.learning_rate)
            .collect();
        Ok(())
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
        for reporter in &mut self.parts.reporters {
            if let Err(error) = reporter.scalars(self.state.global_step, values) {
                tracing::warn!(
                    "the report {} left out step {}: {}",
                    reporter.name(),
                    self.state.global_step,
                    told(&error)
                );
            }
        }
        self.fire(Event::Log(values))
    }
}

/// JSON has no NaN and no infinities; the reference's readers accept the words as strings or numbers, ours as strings.
fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value)
        .map_or_else(|| Value::String(value.to_string()), Value::Number)
}
