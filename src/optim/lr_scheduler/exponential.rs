//! Exponential decay after warm-up (`exponential`, which 4.34 documents and does not have; spec 4.1).

use anyhow::Result;

use super::{Schedule, ScheduleSettings};
use crate::error::Failure;
use crate::optim::Options;

/// Factor at the last step.
const FINAL_RATIO: f64 = 0.1;

#[derive(Debug)]
enum Decay {
    /// To this factor at the last step.
    To(f64),
    /// By this factor each step.
    By(f64),
}

#[derive(Debug)]
struct Exponential {
    settings: ScheduleSettings,
    decay: Decay,
}

/// `g^p` with the setting `final_ratio` (0.1) as g, or `gamma^(s - w)` with the setting `gamma`; not both.
pub fn schedule(settings: ScheduleSettings, options: &Options) -> Result<Box<dyn Schedule>> {
    options.only("exponential", &["final_ratio", "gamma"])?;
    let decay = match (options.number("final_ratio")?, options.number("gamma")?) {
        (Some(_), Some(_)) => {
            let message = "exponential takes final_ratio or gamma, not both";
            return Err(Failure::usage(message).into());
        }
        (None, Some(gamma)) => Decay::By(gamma),
        (ratio, None) => Decay::To(ratio.unwrap_or(FINAL_RATIO)),
    };
    Ok(Box::new(Exponential { settings, decay }))
}

impl Schedule for Exponential {
    fn factor(&self, step: u64) -> f64 {
        let settings = &self.settings;
        settings.warmup(step).unwrap_or_else(|| match self.decay {
            Decay::To(ratio) => ratio.powf(settings.progress(step)),
            Decay::By(gamma) => gamma.powf((step - settings.warmup_steps) as f64),
        })
    }
}
