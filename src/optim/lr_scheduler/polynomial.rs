//! Polynomial: down to an end rate after warm-up, and constant there.

use anyhow::Result;

use super::{Schedule, ScheduleSettings};
use crate::error::Failure;
use crate::optim::Options;

/// End rate.
const END: f64 = 1e-7;

#[derive(Debug)]
struct Polynomial {
    settings: ScheduleSettings,
    end: f64,
    power: f64,
}

/// `((lr - e) (1 - (s - w) / (T - w))^k + e) / lr`, `e / lr` beyond T; the settings `lr_end` (1e-7) and `power` (1) are e and k.
/// The reference divides by zero, at the last step, when warm-up takes the whole run: refused here before the first.
pub fn schedule(settings: ScheduleSettings, options: &Options) -> Result<Box<dyn Schedule>> {
    options.only("polynomial", &["lr_end", "power"])?;
    let end = options.number("lr_end")?.unwrap_or(END);
    let ScheduleSettings {
        warmup_steps,
        total_steps,
        learning_rate,
    } = settings;
    if learning_rate.partial_cmp(&end) != Some(std::cmp::Ordering::Greater) {
        return Err(Failure::usage(format!(
            "polynomial: learning_rate {learning_rate} is not above its end {end}"
        ))
        .into());
    }
    if warmup_steps == total_steps {
        let message = format!(
            "polynomial: warmup_steps {warmup_steps} leaves no step of the {total_steps} to decay in"
        );
        return Err(Failure::usage(message)
            .hint("lower --warmup_steps or --warmup_ratio")
            .into());
    }
    Ok(Box::new(Polynomial {
        settings,
        end,
        power: options.number("power")?.unwrap_or(1.0),
    }))
}

impl Schedule for Polynomial {
    fn factor(&self, step: u64) -> f64 {
        let ScheduleSettings {
            warmup_steps,
            total_steps,
            learning_rate,
        } = self.settings;
        if let Some(factor) = self.settings.warmup(step) {
            return factor;
        }
        if step > total_steps {
            return self.end / learning_rate;
        }
        let remaining = 1.0 - (step - warmup_steps) as f64 / (total_steps - warmup_steps) as f64;
        ((learning_rate - self.end) * remaining.powf(self.power) + self.end) / learning_rate
    }
}

#[cfg(test)]
mod tests {
    use super::{Options, Polynomial, Schedule, ScheduleSettings};

    #[test]
    fn a_square_gives_the_recorded_values() {
        let settings = ScheduleSettings {
            warmup_steps: 2,
            total_steps: 10,
            learning_rate: 10.0,
        };
        let schedule = Polynomial {
            settings,
            end: super::END,
            power: 2.0,
        };
        let expected = [
            0.0, 5.0, 10.0, 7.65625, 5.625, 3.90625, 2.5, 1.40625, 0.625, 0.15625, 0.0, 0.0,
        ];
        for (step, expected) in expected.into_iter().enumerate() {
            let rate = 10.0 * schedule.factor(step as u64);
            assert!((rate - expected).abs() < 1e-6, "{step}: {rate} {expected}");
        }
    }

    #[test]
    fn warm_up_longer_than_the_run_ends_at_the_end_rate() {
        let settings = ScheduleSettings {
            warmup_steps: 12,
            total_steps: 10,
            learning_rate: 10.0,
        };
        assert_eq!(
            super::schedule(settings, &Options::default())
                .expect("possible")
                .factor(12),
            1e-8
        );
    }
}
