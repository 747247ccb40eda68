//! The arithmetic of a run: updates per epoch, steps, epochs, intervals (spec 3.3).

use anyhow::{Result, ensure};

use crate::error::Failure;

/// Whole numbers up to this one are exact as floating point numbers, in which shares of a run are computed.
const MAX_STEPS: f64 = 9_007_199_254_740_992.0;

fn too_long() -> Failure {
    Failure::usage("the run has more steps or rows than can be counted")
        .hint("lower --num_train_epochs, --max_steps, or --gradient_accumulation_steps")
}

/// What the arithmetic starts from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlanInput {
    /// Micro-batches of an epoch; `None` for a stream, whose length is not known.
    pub loader_len: Option<u64>,
    /// Rows of the training set; not read for a stream.
    pub num_rows: u64,
    /// Rows of a micro-batch.
    pub batch_size: u64,
    /// Micro-batches of a step.
    pub accumulation: u64,
    /// Epochs, may be fractional.
    pub num_train_epochs: f64,
    /// Overrides the epochs.
    pub max_steps: Option<u64>,
    /// Intervals as given; below 1 a share of all steps.
    pub logging_steps: f64,
    /// Intervals as given; below 1 a share of all steps.
    pub eval_steps: f64,
    /// Intervals as given; below 1 a share of all steps.
    pub save_steps: f64,
    /// Warm-up steps; 0: from the ratio.
    pub warmup_steps: u64,
    /// Share of all steps.
    pub warmup_ratio: f64,
}

/// A run's numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Micro-batches of an epoch.
    pub steps_in_epoch: u64,
    /// Micro-batches of a step.
    pub accumulation: u64,
    /// Optimizer steps of an epoch, at least 1.
    pub updates_per_epoch: u64,
    /// Optimizer steps of the run.
    pub max_steps: u64,
    /// Epochs as given; `None`: the steps were given.
    pub epochs: Option<f64>,
    /// Epochs of the run, rounded up.
    pub num_train_epochs: u64,
    /// Rows that the run sees, planned; for the speed metrics.
    pub num_train_samples: u64,
    /// The steps follow from the epochs: they were not given.
    pub by_epochs: bool,
    /// Warm-up steps.
    pub warmup_steps: u64,
    /// Logging interval in steps.
    pub logging_steps: f64,
    /// Evaluation interval in steps.
    pub eval_steps: f64,
    /// Saving interval in steps.
    pub save_steps: f64,
}

/// Epochs of a run over a stream: as many as it takes (`sys.maxsize` in the reference).
const ENDLESS: u64 = i64::MAX as u64;

/// What the length of the data decides.
struct Extent {
    steps_in_epoch: u64,
    updates_per_epoch: u64,
    max_steps: u64,
    num_train_epochs: u64,
    num_train_samples: u64,
}

impl Extent {
    fn of(input: &PlanInput) -> Result<Self> {
        match input.loader_len {
            Some(len) => Self::known(input, len),
            None => Self::unknown(input),
        }
    }

    fn known(input: &PlanInput, loader_len: u64) -> Result<Self> {
        ensure!(
            loader_len > 0,
            Failure::data(format!(
                "{} training rows make no batch of {}",
                input.num_rows, input.batch_size
            ))
            .hint("add rows, lower --per_device_train_batch_size, or drop --dataloader_drop_last")
        );
        let updates_per_epoch = (loader_len / input.accumulation).max(1);
        let (max_steps, num_train_epochs, num_train_samples) = match input.max_steps {
            Some(steps) => (
                steps,
                steps.div_ceil(updates_per_epoch),
                steps
                    .checked_mul(input.batch_size)
                    .and_then(|rows| rows.checked_mul(input.accumulation))
                    .ok_or_else(too_long)?,
            ),
            None => {
                let steps = (input.num_train_epochs * updates_per_epoch as f64).ceil();
                ensure!(steps < MAX_STEPS, too_long());
                let steps = steps as u64;
                let samples = (input.num_rows as f64 * input.num_train_epochs) as u64;
                (steps, input.num_train_epochs.ceil() as u64, samples)
            }
        };
        Ok(Self {
            steps_in_epoch: loader_len,
            updates_per_epoch,
            max_steps,
            num_train_epochs,
            num_train_samples,
        })
    }

    /// A stream counts as one epoch of all steps; where it ends earlier the next epoch begins it again.
    fn unknown(input: &PlanInput) -> Result<Self> {
        let needs_steps = || {
            Failure::usage("training on a stream needs max_steps: its length is not known")
                .hint("set --max_steps")
        };
        let max_steps = input.max_steps.ok_or_else(needs_steps)?;
        Ok(Self {
            steps_in_epoch: max_steps * input.accumulation,
            updates_per_epoch: max_steps,
            max_steps,
            num_train_epochs: ENDLESS,
            num_train_samples: max_steps * input.batch_size * input.accumulation,
        })
    }
}

impl Plan {
    /// The plan of a run.
    pub fn new(input: PlanInput) -> Result<Self> {
        let Extent {
            steps_in_epoch,
            updates_per_epoch,
            max_steps,
            num_train_epochs,
            num_train_samples,
        } = Extent::of(&input)?;
        let interval = |value: f64| {
            if value < 1.0 {
                (max_steps as f64 * value).ceil()
            } else {
                value
            }
        };
        let warmup_steps = match input.warmup_steps {
            0 => (input.warmup_ratio * max_steps as f64).ceil() as u64,
            steps => steps,
        };
        Ok(Self {
            steps_in_epoch,
            accumulation: input.accumulation,
            updates_per_epoch,
            max_steps,
            epochs: input.max_steps.is_none().then_some(input.num_train_epochs),
            num_train_epochs,
            num_train_samples,
            by_epochs: input.max_steps.is_none(),
            warmup_steps,
            logging_steps: interval(input.logging_steps),
            eval_steps: interval(input.eval_steps),
            save_steps: interval(input.save_steps),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rows: u64, batch: u64, accumulation: u64, epochs: f64, max_steps: Option<u64>) -> Plan {
        Plan::new(PlanInput {
            loader_len: Some(rows.div_ceil(batch)),
            num_rows: rows,
            batch_size: batch,
            accumulation,
            num_train_epochs: epochs,
            max_steps,
            logging_steps: 0.3,
            eval_steps: 0.25,
            save_steps: 0.5,
            warmup_steps: 0,
            warmup_ratio: 0.1,
        })
        .expect("a plan")
    }

    #[test]
    fn rows_8_to_10_and_20_of_the_specification() {
        // rows, batch, accumulation, epochs, max_steps -> steps, epochs
        let cases = [
            ((64, 8, 1, 3.0, None), (24, 3)),
            ((64, 8, 1, 1.5, None), (12, 2)),
            ((64, 8, 1, 3.0, Some(10)), (10, 2)),
            ((20, 4, 1, 1.5, None), (8, 2)),
            ((20, 4, 1, 0.3, None), (2, 1)),
            ((64, 16, 5, 3.0, Some(3)), (3, 3)),
            ((64, 16, 5, 3.0, None), (3, 3)),
            ((20, 4, 2, 3.0, None), (6, 3)),
        ];
        for ((rows, batch, accumulation, epochs, max), (steps, whole_epochs)) in cases {
            let plan = plan(rows, batch, accumulation, epochs, max);
            assert_eq!(
                (plan.max_steps, plan.num_train_epochs),
                (steps, whole_epochs),
                "{rows} rows, batch {batch}"
            );
        }
        let plan = plan(64, 8, 1, 1.0, None);
        assert_eq!(
            (plan.logging_steps, plan.eval_steps, plan.save_steps),
            (3.0, 2.0, 4.0)
        );
    }

    // Row 63, and spec 3.3 without a length.
    #[test]
    fn a_stream_needs_max_steps_and_is_one_epoch_of_them() {
        let input = |max_steps| PlanInput {
            loader_len: None,
            num_rows: 0,
            batch_size: 8,
            accumulation: 2,
            num_train_epochs: 3.0,
            max_steps,
            logging_steps: 0.5,
            eval_steps: 1.0,
            save_steps: 1.0,
            warmup_steps: 0,
            warmup_ratio: 0.0,
        };
        let plan = Plan::new(input(Some(4))).expect("a plan");
        assert_eq!(
            (plan.steps_in_epoch, plan.updates_per_epoch, plan.max_steps),
            (8, 4, 4)
        );
        assert_eq!(
            (plan.num_train_epochs, plan.num_train_samples),
            (9_223_372_036_854_775_807, 64)
        );
        assert_eq!(plan.logging_steps, 2.0);
        let error = Plan::new(input(None)).expect_err("no steps");
        assert!(error.to_string().contains("needs max_steps"), "{error}");
    }

    #[test]
    fn warm_up_is_a_share_rounded_up() {
        // Row 73.
        assert_eq!(plan(200, 8, 1, 1.0, None).warmup_steps, 3);
    }
}
