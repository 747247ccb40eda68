//! Gradient accumulation: the one place that decides where a step ends, and the one place that divides the loss (I6).
//!
//! The running count carries an incomplete group into the next epoch, as 4.34 does (spec 3.4).

use anyhow::Result;
use tch::Tensor;

/// Counts micro-batches of a `train` call.
#[derive(Clone, Debug)]
pub struct Accumulation {
    steps: u64,
    total_batches: u64,
    pending: u64,
}

/// Where a micro-batch stands in its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index in the epoch, from 0.
    pub index: u64,
    /// Micro-batches of an epoch.
    pub epoch_len: u64,
}

impl Accumulation {
    /// `steps` is `gradient_accumulation_steps`, at least 1.
    pub fn new(steps: u64) -> Self {
        Self {
            steps,
            total_batches: 0,
            pending: 0,
        }
    }

    /// Continues with counts from a checkpoint.
    pub fn resumed(steps: u64, total_batches: u64, pending: u64) -> Self {
        Self {
            steps,
            total_batches,
            pending,
        }
    }

    /// Micro-batches counted so far.
    pub fn total_batches(&self) -> u64 {
        self.total_batches
    }

    /// Micro-batches whose gradients have not been used yet.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// Whether a step begins at this micro-batch: by its index in the epoch, so begin and end may be unpaired.
    pub fn begins_step(&self, place: Place) -> bool {
        place.index.is_multiple_of(self.steps)
    }

    /// Counts a micro-batch; true if it ends a step.
    pub fn ends_step(&mut self, place: Place) -> bool {
        self.total_batches += 1;
        self.pending += 1;
        let short_epoch_ends = place.epoch_len <= self.steps && place.index + 1 == place.epoch_len;
        let ends = self.total_batches.is_multiple_of(self.steps) || short_epoch_ends;
        if ends {
            self.pending = 0;
        }
        ends
    }

    /// The share of a micro-batch in the step's loss: always divided by the configured steps, also in short groups.
    pub fn share(&self, loss: &Tensor) -> Result<Tensor> {
        Ok(loss.f_div_scalar(self.steps as i64)?)
    }

    /// [`Accumulation::share`] of a number in the precision of a float32 loss.
    pub fn share_of(&self, loss: f64, is_double: bool) -> f64 {
        if is_double {
            loss / self.steps as f64
        } else {
            f64::from(loss as f32 / self.steps as f32)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Accumulation, Place};

    /// Epoch positions (rounded to thousandths) at which steps end.
    fn positions(epoch_len: u64, steps: u64, epochs: u64) -> Vec<u64> {
        let mut accumulation = Accumulation::new(steps);
        let mut ends = Vec::new();
        for epoch in 0..epochs {
            for index in 0..epoch_len {
                if accumulation.ends_step(Place { index, epoch_len }) {
                    ends.push((epoch * epoch_len + index + 1) * 1000 / epoch_len);
                }
            }
        }
        ends
    }

    #[test]
    fn the_table_of_spec_3_4() {
        assert_eq!(positions(5, 2, 3), [400, 800, 1200, 1600, 2000, 2400, 2800]);
        assert_eq!(positions(5, 2, 1), [400, 800]);
        assert_eq!(positions(5, 3, 2), [600, 1200, 1800]);
        assert_eq!(positions(2, 4, 2), [1000, 2000]);
        assert_eq!(positions(3, 4, 2), [1000, 1333, 2000]);
        assert_eq!(positions(4, 5, 3), [1000, 1250, 2000, 2500, 3000]);
    }
}
