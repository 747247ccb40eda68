//! Cosine with hard restarts: from 1 to 0 in each of `cycles` waves after warm-up, 0 from the last step on.

use std::f64::consts::PI;

use anyhow::Result;

use super::{Schedule, ScheduleSettings};
use crate::optim::Options;

#[derive(Debug)]
struct CosineWithRestarts {
    settings: ScheduleSettings,
    cycles: f64,
}

/// `0 if p >= 1 else max(0, 0.5 (1 + cos(pi ((n p) mod 1))))`; the setting `num_cycles` (1) is n.
pub fn schedule(settings: ScheduleSettings, options: &Options) -> Result<Box<dyn Schedule>> {
    options.only("cosine_with_restarts", &["num_cycles"])?;
    Ok(Box::new(CosineWithRestarts {
        settings,
        cycles: options.number("num_cycles")?.unwrap_or(1.0),
    }))
}

impl Schedule for CosineWithRestarts {
    fn factor(&self, step: u64) -> f64 {
        if let Some(factor) = self.settings.warmup(step) {
            return factor;
        }
        let progress = self.settings.progress(step);
        if progress >= 1.0 {
            0.0
        } else {
            f64::max(
                0.0,
                0.5 * (1.0 + (PI * ((self.cycles * progress) % 1.0)).cos()),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CosineWithRestarts, Schedule, ScheduleSettings};

    #[test]
    fn two_cycles_give_the_recorded_values() {
        let settings = ScheduleSettings {
            warmup_steps: 2,
            total_steps: 10,
            learning_rate: 10.0,
        };
        let schedule = CosineWithRestarts {
            settings,
            cycles: 2.0,
        };
        let expected = [
            0.0, 5.0, 10.0, 8.535534, 5.0, 1.464466, 10.0, 8.535534, 5.0, 1.464466, 0.0, 0.0,
        ];
        for (step, expected) in expected.into_iter().enumerate() {
            let rate = 10.0 * schedule.factor(step as u64);
            assert!((rate - expected).abs() < 1e-6, "{step}: {rate} {expected}");
        }
    }
}
