//! What the log says of the loss: the running sum in float32, the filter for values that are not finite, the mean per
//! logging interval, and the mean over the run (spec 3.6, 3.7). Gradients are not its business.

use serde::{Deserialize, Serialize};

use super::round;
use crate::checkpoint::json::any_number;

/// Sums of micro-batch losses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossLog {
    /// Shares since the last log, float32 as in the reference.
    #[serde(with = "any_number")]
    running: f32,
    /// Sums that were logged.
    #[serde(with = "any_number")]
    logged: f64,
    /// Step of the last log.
    last_logged_step: u64,
    /// Step at which this `train` call began; `train_loss` is the mean over its own steps.
    #[serde(skip)]
    first_step: u64,
    /// Shares of an earlier call in the first interval of this one: logged with it, but no part of `train_loss`.
    #[serde(skip)]
    carried: f32,
}

impl LossLog {
    /// Begins a call at `step`. The sums of an interval that an earlier run has not logged are kept.
    pub fn begin(&mut self, step: u64, unlogged: Option<&LossLog>) {
        *self = Self {
            last_logged_step: step,
            first_step: step,
            ..Self::default()
        };
        if let Some(earlier) = unlogged {
            (self.running, self.carried) = (earlier.running, earlier.running);
            self.last_logged_step = earlier.last_logged_step;
        }
    }

    /// Adds the share of a micro-batch. With the filter, a share that is not finite counts as the mean so far.
    pub fn add(&mut self, share: f64, step: u64, filter: bool) {
        if filter && !share.is_finite() {
            let steps = (1 + step - self.last_logged_step) as f32;
            self.running += self.running / steps;
        } else {
            self.running = (f64::from(self.running) + share) as f32;
        }
    }

    /// Whether there is anything to log at `step`.
    pub fn has_steps(&self, step: u64) -> bool {
        step > self.last_logged_step
    }

    /// Closes an interval: the mean loss per step, rounded to 4 digits.
    pub fn take(&mut self, step: u64) -> f64 {
        let sum = f64::from(self.running);
        // The reference subtracts the sum from itself, so a value that is not finite stays.
        self.running -= self.running;
        let mean = round(sum / (step - self.last_logged_step) as f64, 4);
        self.logged += sum;
        self.last_logged_step = step;
        mean
    }

    /// Mean loss over the steps of this call; 0 if there were none.
    pub fn mean(&self, step: u64) -> f64 {
        let steps = step - self.first_step;
        if steps == 0 {
            0.0
        } else {
            (self.logged + f64::from(self.running) - f64::from(self.carried)) / steps as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LossLog;

    /// Losses 1, 2, 3, ... with NaN where `bad` says; logs every `every` steps.
    fn logs(bad: &dyn Fn(u64) -> bool, accumulation: u64, every: u64, batches: u64) -> Vec<f64> {
        let mut log = LossLog::default();
        log.begin(0, None);
        let (mut step, mut means) = (0, Vec::new());
        for batch in 1..=batches {
            let loss = if bad(batch) { f64::NAN } else { batch as f64 };
            log.add(loss / accumulation as f64, step, true);
            if batch % accumulation == 0 {
                step += 1;
                if step % every == 0 {
                    means.push(log.take(step));
                }
            }
        }
        means
    }

    #[test]
    fn the_filter_of_spec_3_6() {
        assert_eq!(
            logs(&|batch| batch % 3 == 0, 1, 4, 12),
            [2.0, 5.625, 6.5625]
        );
        assert_eq!(
            logs(&|batch| batch == 1 || batch == 5, 1, 4, 12),
            [2.25, 5.25, 10.5]
        );
        assert_eq!(logs(&|batch| batch == 4, 2, 2, 8), [2.25, 6.5]);
    }

    #[test]
    fn the_mean_covers_the_steps_of_the_call() {
        let mut log = LossLog::default();
        log.begin(10, None);
        assert_eq!(log.mean(10), 0.0);
        log.add(2.0, 10, true);
        log.add(4.0, 11, true);
        assert_eq!(log.mean(12), 3.0);
    }

    #[test]
    fn an_interval_that_an_earlier_call_began_is_logged_whole_but_not_counted_twice() {
        let mut earlier = LossLog::default();
        earlier.begin(0, None);
        earlier.add(8.0, 0, true);
        let mut log = LossLog::default();
        log.begin(1, Some(&earlier));
        assert_eq!(log.mean(1), 0.0);
        log.add(2.0, 1, true);
        assert_eq!(log.mean(2), 2.0);
        assert_eq!(log.take(2), 5.0);
        log.add(4.0, 2, true);
        assert_eq!(log.mean(3), 3.0);
    }
}
