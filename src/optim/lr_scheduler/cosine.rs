//! Cosine waves after warm-up: `cosine` from 1 to 0, `cosine_with_min_lr` from 1 to a share of the rate. They rise again
//! beyond the last step.

use std::f64::consts::PI;

use anyhow::Result;

use super::{Schedule, ScheduleSettings};
use crate::error::Failure;
use crate::optim::Options;

/// Half a wave.
const CYCLES: f64 = 0.5;

#[derive(Debug)]
struct Cosine {
    settings: ScheduleSettings,
    cycles: f64,
    /// Factor at the bottom of the wave.
    least: f64,
}

/// `max(0, 0.5 (1 + cos(2 pi c p)))`; the setting `num_cycles` is c.
pub fn schedule(settings: ScheduleSettings, options: &Options) -> Result<Box<dyn Schedule>> {
    options.only("cosine", &["num_cycles"])?;
    Ok(Box::new(Cosine {
        settings,
        cycles: options.number("num_cycles")?.unwrap_or(CYCLES),
        least: 0.0,
    }))
}

/// The same raised to end at `min_lr`, or at the share `min_lr_rate` of the rate; one of them is given.
pub fn with_min_lr(settings: ScheduleSettings, options: &Options) -> Result<Box<dyn Schedule>> {
    options.only(
        "cosine_with_min_lr",
        &["num_cycles", "min_lr", "min_lr_rate"],
    )?;
    let least = match (options.number("min_lr")?, options.number("min_lr_rate")?) {
        (Some(rate), None) => rate / settings.learning_rate,
        (None, Some(share)) => share,
        _ => {
            let message = "cosine_with_min_lr needs either min_lr or min_lr_rate";
            return Err(Failure::usage(message).into());
        }
    };
    Ok(Box::new(Cosine {
        settings,
        cycles: options.number("num_cycles")?.unwrap_or(CYCLES),
        least,
    }))
}

impl Schedule for Cosine {
    fn factor(&self, step: u64) -> f64 {
        let settings = &self.settings;
        // The order of the factors is the reference's: it decides the last digit.
        settings.warmup(step).unwrap_or_else(|| {
            let wave = 0.5 * (1.0 + (PI * self.cycles * 2.0 * settings.progress(step)).cos());
            f64::max(0.0, wave * (1.0 - self.least) + self.least)
        })
    }
}
