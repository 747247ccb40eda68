//! `DefaultFlowCallback`: when to log, evaluate, save and stop (spec 3.1). Always the first callback.

use anyhow::Result;

use super::{Callback, Context, Event, EventKind};

/// When something periodic happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Never.
    Never,
    /// Every so many steps; the interval is in the trainer's state.
    Steps,
    /// At the end of each epoch.
    Epoch,
}

/// The reference's default flow.
#[derive(Clone, Debug)]
pub struct DefaultFlow {
    /// When the loss is logged.
    pub logging: Schedule,
    /// Log step 1 too.
    pub logging_first_step: bool,
    /// When to evaluate.
    pub evaluation: Schedule,
    /// Not before this step or epoch.
    pub evaluation_delay: f64,
    /// When to save.
    pub saving: Schedule,
}

impl Callback for DefaultFlow {
    fn name(&self) -> &str {
        "default_flow"
    }

    fn wants(&self, kind: EventKind) -> bool {
        matches!(kind, EventKind::StepEnd | EventKind::EpochEnd)
    }

    fn on_event(&mut self, event: Event<'_>, context: &mut Context<'_>) -> Result<()> {
        // Its wishes are the run's own schedule: the audit is about what others change of it.
        context.control.set_actor("", context.state.global_step);
        match event {
            Event::StepEnd => self.on_step_end(context),
            Event::EpochEnd => self.on_epoch_end(context),
            _ => {}
        }
        Ok(())
    }
}

impl DefaultFlow {
    fn on_step_end(&self, context: &mut Context<'_>) {
        let state = context.state;
        let step = state.global_step;
        let due =
            |schedule, interval: f64| schedule == Schedule::Steps && is_multiple(step, interval);
        if (step == 1 && self.logging_first_step) || due(self.logging, state.logging_steps) {
            context.control.set_log(true);
        }
        if due(self.evaluation, state.eval_steps) && self.evaluation_delay <= step as f64 {
            context.control.set_evaluate(true);
        }
        if due(self.saving, state.save_steps) {
            context.control.set_save(true);
        }
        if step >= state.max_steps {
            context.control.stop_training("all steps are done");
        }
    }

    fn on_epoch_end(&self, context: &mut Context<'_>) {
        if self.logging == Schedule::Epoch {
            context.control.set_log(true);
        }
        if self.evaluation == Schedule::Epoch
            && self.evaluation_delay <= context.state.epoch.unwrap_or(0.0)
        {
            context.control.set_evaluate(true);
        }
        if self.saving == Schedule::Epoch {
            context.control.set_save(true);
        }
    }
}

/// Intervals are whole numbers once resolved; 0 means never.
fn is_multiple(step: u64, interval: f64) -> bool {
    interval >= 1.0 && step.is_multiple_of(interval as u64)
}
