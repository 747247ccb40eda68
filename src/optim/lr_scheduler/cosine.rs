//! Cosine: half a wave from 1 to 0 after warm-up; it rises again beyond the last step.

use std::f64::consts::PI;

use anyhow::Result;

use super::{Schedule, ScheduleSettings};

/// Half a wave; no argument of 4.34 changes it.
const CYCLES: f64 = 0.5;

#[derive(Debug)]
struct Cosine(ScheduleSettings);

/// `max(0, 0.5 (1 + cos(2 pi c p)))`
pub fn schedule(settings: ScheduleSettings) -> Result<Box<dyn Schedule>> {
    Ok(Box::new(Cosine(settings)))
}

impl Schedule for Cosine {
    fn factor(&self, step: u64) -> f64 {
        let settings = &self.0;
        // The order of the factors is the reference's: it decides the last digit.
        settings.warmup(step).unwrap_or_else(|| {
            f64::max(
                0.0,
                0.5 * (1.0 + (PI * CYCLES * 2.0 * settings.progress(step)).cos()),
            )
        })
    }
}
