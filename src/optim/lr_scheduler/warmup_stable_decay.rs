//! Warm-up, a plateau, and a decay at the end (`warmup_stable_decay` of 4.57, beyond 4.34).

use std::f64::consts::PI;

use anyhow::Result;

use super::{Schedule, ScheduleSettings};
use crate::error::Failure;
use crate::optim::Options;

const SETTINGS: &[&str] = &[
    "num_decay_steps",
    "num_stable_steps",
    "warmup_type",
    "decay_type",
    "min_lr_ratio",
    "num_cycles",
];

/// How a rate goes from one level to another.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Linear,
    Cosine,
    OneMinusSquareRoot,
}

const SHAPES: &[(&str, Shape)] = &[
    ("linear", Shape::Linear),
    ("cosine", Shape::Cosine),
    ("1-sqrt", Shape::OneMinusSquareRoot),
];

#[derive(Debug)]
struct WarmupStableDecay {
    warmup_steps: u64,
    stable_steps: u64,
    decay_steps: u64,
    warmup: Shape,
    decay: Shape,
    least: f64,
    cycles: f64,
}

/// Settings: `num_decay_steps`, which must be given; `num_stable_steps` (what is left of the run), `warmup_type` (linear)
/// and `decay_type` (cosine), each linear, cosine or 1-sqrt; `min_lr_ratio` (0), the factor before warm-up and after the
/// decay; `num_cycles` (0.5) of a cosine decay.
pub fn schedule(settings: ScheduleSettings, options: &Options) -> Result<Box<dyn Schedule>> {
    options.only("warmup_stable_decay", SETTINGS)?;
    let Some(decay_steps) = options.count("num_decay_steps")? else {
        return Err(Failure::usage("warmup_stable_decay needs num_decay_steps").into());
    };
    let ScheduleSettings {
        warmup_steps,
        total_steps,
        ..
    } = settings;
    // The reference lets the decay begin in the middle of its curve.
    let left = total_steps.checked_sub(warmup_steps.saturating_add(decay_steps));
    let Some(stable_steps) = options.count("num_stable_steps")?.or(left) else {
        let message = format!(
            "warmup_stable_decay: {warmup_steps} steps of warm-up and num_decay_steps {decay_steps} are more than the \
             {total_steps} of the run"
        );
        return Err(Failure::usage(message)
            .hint("lower num_decay_steps, or give num_stable_steps")
            .into());
    };
    Ok(Box::new(WarmupStableDecay {
        warmup_steps,
        stable_steps,
        decay_steps,
        warmup: options
            .one_of("warmup_type", SHAPES)?
            .unwrap_or(Shape::Linear),
        decay: options
            .one_of("decay_type", SHAPES)?
            .unwrap_or(Shape::Cosine),
        least: options.number("min_lr_ratio")?.unwrap_or(0.0),
        cycles: options.number("num_cycles")?.unwrap_or(0.5),
    }))
}

impl WarmupStableDecay {
    fn raised(&self, factor: f64) -> f64 {
        f64::max(0.0, factor * (1.0 - self.least) + self.least)
    }
}

impl Schedule for WarmupStableDecay {
    fn factor(&self, step: u64) -> f64 {
        let decay_start = self.warmup_steps.saturating_add(self.stable_steps);
        if step < self.warmup_steps {
            let progress = step as f64 / self.warmup_steps.max(1) as f64;
            return self.raised(match self.warmup {
                Shape::Linear => progress,
                Shape::Cosine => 0.5 * (1.0 - (PI * progress).cos()),
                Shape::OneMinusSquareRoot => 1.0 - (1.0 - progress).sqrt(),
            });
        }
        if step < decay_start {
            return 1.0;
        }
        if step >= decay_start.saturating_add(self.decay_steps) {
            return self.least;
        }
        let progress = (step - decay_start) as f64 / self.decay_steps.max(1) as f64;
        self.raised(match self.decay {
            Shape::Linear => 1.0 - progress,
            Shape::Cosine => 0.5 * (1.0 + (PI * self.cycles * 2.0 * progress).cos()),
            Shape::OneMinusSquareRoot => 1.0 - progress.sqrt(),
        })
    }
}
