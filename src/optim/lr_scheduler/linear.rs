//! Linear: up during warm-up, then down to 0 at the last step.

use anyhow::Result;

use super::{Schedule, ScheduleSettings};
use crate::optim::Options;

#[derive(Debug)]
struct Linear(ScheduleSettings);

/// `max(0, (T - s) / max(1, T - w))`
pub fn schedule(settings: ScheduleSettings, options: &Options) -> Result<Box<dyn Schedule>> {
    options.only("linear", &[])?;
    Ok(Box::new(Linear(settings)))
}

impl Schedule for Linear {
    fn factor(&self, step: u64) -> f64 {
        let settings = &self.0;
        settings.warmup(step).unwrap_or_else(|| {
            settings.total_steps.saturating_sub(step) as f64 / settings.decay_steps()
        })
    }
}
