//! Constant with warm-up: the initial rate after a linear rise.

use anyhow::Result;

use super::{Schedule, ScheduleSettings};

#[derive(Debug)]
struct ConstantWithWarmup(ScheduleSettings);

/// `1`
pub fn schedule(settings: ScheduleSettings) -> Result<Box<dyn Schedule>> {
    Ok(Box::new(ConstantWithWarmup(settings)))
}

impl Schedule for ConstantWithWarmup {
    fn factor(&self, step: u64) -> f64 {
        self.0.warmup(step).unwrap_or(1.0)
    }
}
