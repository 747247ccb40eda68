//! Constant with warm-up: the initial rate after a linear rise.

use anyhow::Result;

use super::{Schedule, ScheduleSettings};
use crate::optim::Options;

#[derive(Debug)]
struct ConstantWithWarmup(ScheduleSettings);

/// `1`
pub fn schedule(settings: ScheduleSettings, options: &Options) -> Result<Box<dyn Schedule>> {
    options.only("constant_with_warmup", &[])?;
    Ok(Box::new(ConstantWithWarmup(settings)))
}

impl Schedule for ConstantWithWarmup {
    fn factor(&self, step: u64) -> f64 {
        self.0.warmup(step).unwrap_or(1.0)
    }
}
