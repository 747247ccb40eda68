//! Inverse square root of the steps, scaled by the warm-up.

use anyhow::Result;

use super::{Schedule, ScheduleSettings};
use crate::error::Failure;

#[derive(Debug)]
struct InverseSqrt(ScheduleSettings);

/// `1 / sqrt((s + t - w) / t)` with t = w. The reference divides by zero without warm-up: refused here.
pub fn schedule(settings: ScheduleSettings) -> Result<Box<dyn Schedule>> {
    if settings.warmup_steps == 0 {
        return Err(Failure::usage(
            "inverse_sqrt: warmup_steps 0 is not possible: it is also the time scale",
        )
        .hint("set --warmup_steps or --warmup_ratio")
        .into());
    }
    Ok(Box::new(InverseSqrt(settings)))
}

impl Schedule for InverseSqrt {
    fn factor(&self, step: u64) -> f64 {
        let settings = &self.0;
        settings
            .warmup(step)
            .unwrap_or_else(|| 1.0 / (step as f64 / settings.warmup_steps as f64).sqrt())
    }
}
