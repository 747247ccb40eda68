//! Inverse square root of the steps, scaled by the warm-up.

use anyhow::Result;

use super::{Schedule, ScheduleSettings};
use crate::error::Failure;
use crate::optim::Options;

#[derive(Debug)]
struct InverseSqrt {
    settings: ScheduleSettings,
    timescale: u64,
}

/// `1 / sqrt((s + t - w) / t)`; the setting `timescale` (w) is t. Without both 4.34 divides by zero: refused here.
pub fn schedule(settings: ScheduleSettings, options: &Options) -> Result<Box<dyn Schedule>> {
    options.only("inverse_sqrt", &["timescale"])?;
    let timescale = options.count("timescale")?.unwrap_or(settings.warmup_steps);
    if timescale == 0 {
        return Err(Failure::usage(
            "inverse_sqrt: warmup_steps 0 is not possible: it is also the time scale",
        )
        .hint("set --warmup_steps or --warmup_ratio, or give timescale")
        .into());
    }
    Ok(Box::new(InverseSqrt {
        settings,
        timescale,
    }))
}

impl Schedule for InverseSqrt {
    fn factor(&self, step: u64) -> f64 {
        let (settings, timescale) = (&self.settings, self.timescale as f64);
        let shift = timescale - settings.warmup_steps as f64;
        settings
            .warmup(step)
            .unwrap_or_else(|| 1.0 / ((step as f64 + shift) / timescale).sqrt())
    }
}
