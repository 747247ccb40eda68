//! `torch.optim.lr_scheduler.ReduceLROnPlateau` with its defaults, as the reference makes it: the rate is divided by ten
//! when a metric has not fallen for a while. The metric is always minimised, whatever `greater_is_better` says.

use anyhow::Result;
use serde_json::{Value, json};

use super::{LrScheduler, misfit, numbers};
use crate::checkpoint::{PartState, Stateful};
use crate::optim::ParameterGroup;

const FACTOR: f64 = 0.1;
const PATIENCE: u64 = 10;
const COOLDOWN: u64 = 0;
const THRESHOLD: f64 = 1e-4;
const LEAST_RATE: f64 = 0.0;
/// Smaller changes of the rate are not made.
const LEAST_CHANGE: f64 = 1e-8;

/// A schedule of evaluations over groups.
#[derive(Debug)]
pub struct PlateauScheduler {
    best: f64,
    bad_evaluations: u64,
    cooldown: u64,
    last_epoch: u64,
    base_rates: Vec<f64>,
    last_rates: Vec<f64>,
}

impl PlateauScheduler {
    /// The groups keep their rates.
    pub fn new(groups: &[ParameterGroup]) -> Self {
        let base = |group: &ParameterGroup| group.initial_learning_rate;
        let last_rates = groups.iter().map(|group| group.learning_rate).collect();
        Self {
            base_rates: groups.iter().map(base).collect(),
            best: f64::INFINITY,
            bad_evaluations: 0,
            cooldown: 0,
            last_epoch: 0,
            last_rates,
        }
    }

    fn reduce(groups: &mut [ParameterGroup]) {
        for group in groups {
            let reduced = f64::max(group.learning_rate * FACTOR, LEAST_RATE);
            if group.learning_rate - reduced > LEAST_CHANGE {
                group.learning_rate = reduced;
            }
        }
    }
}

impl LrScheduler for PlateauScheduler {
    fn step(&mut self, _groups: &mut [ParameterGroup]) {}

    fn step_with_metric(&mut self, groups: &mut [ParameterGroup], metric: f64) {
        self.last_epoch += 1;
        if metric < self.best * (1.0 - THRESHOLD) {
            self.best = metric;
            self.bad_evaluations = 0;
        } else {
            self.bad_evaluations += 1;
        }
        if self.cooldown > 0 {
            self.cooldown -= 1;
            self.bad_evaluations = 0;
        }
        if self.bad_evaluations > PATIENCE {
            Self::reduce(groups);
            self.cooldown = COOLDOWN;
            self.bad_evaluations = 0;
        }
        self.last_rates.clear();
        self.last_rates
            .extend(groups.iter().map(|group| group.learning_rate));
    }

    fn is_per_evaluation(&self) -> bool {
        true
    }

    fn last_rates(&self) -> &[f64] {
        &self.last_rates
    }

    fn apply(&mut self, groups: &mut [ParameterGroup]) {
        let rates = self.base_rates.iter().zip(&self.last_rates);
        for (group, (base, rate)) in groups.iter_mut().zip(rates) {
            group.initial_learning_rate = *base;
            group.learning_rate = *rate;
        }
    }
}

impl Stateful for PlateauScheduler {
    fn state(&self) -> Result<PartState> {
        let json = json!({
            "factor": FACTOR,
            "patience": PATIENCE,
            "threshold": THRESHOLD,
            "mode": "min",
            "threshold_mode": "rel",
            // JSON has no infinity: null is "none yet".
            "best": if self.best.is_finite() { json!(self.best) } else { Value::Null },
            "num_bad_epochs": self.bad_evaluations,
            "cooldown_counter": self.cooldown,
            "last_epoch": self.last_epoch,
            // Not torch's, which ignores it: what the rates have been divided from.
            "base_lrs": self.base_rates,
            "_last_lr": self.last_rates,
        });
        Ok(PartState {
            tensors: Vec::new(),
            json,
        })
    }

    /// What has been learned of the metric comes from `state`, and how far the rates are reduced. A peak rate that is not
    /// the saved one wins: it is reduced as far.
    fn load_state(&mut self, state: PartState) -> Result<()> {
        let count = |key: &str| {
            state
                .json
                .get(key)
                .and_then(Value::as_u64)
                .ok_or_else(|| misfit(&format!("{key} is not a count")))
        };
        let numbers = |key: &str| numbers(&state.json, key);
        let mut rates = numbers("_last_lr").ok_or_else(|| misfit("_last_lr are not numbers"))?;
        if rates.len() != self.last_rates.len() {
            return Err(misfit(&format!(
                "it has rates of {} groups, the optimizer {}",
                rates.len(),
                self.last_rates.len()
            ))
            .into());
        }
        for (index, base) in numbers("base_lrs").into_iter().flatten().enumerate() {
            match (rates.get_mut(index), self.base_rates.get(index)) {
                (Some(rate), Some(own)) if base != *own && base > 0.0 => {
                    *rate = own * (*rate / base)
                }
                _ => {}
            }
        }
        let (bad, cooldown, epoch) = (
            count("num_bad_epochs")?,
            count("cooldown_counter")?,
            count("last_epoch")?,
        );
        self.best = state
            .json
            .get("best")
            .and_then(Value::as_f64)
            .unwrap_or(f64::INFINITY);
        (
            self.bad_evaluations,
            self.cooldown,
            self.last_epoch,
            self.last_rates,
        ) = (bad, cooldown, epoch, rates);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{LrScheduler, PlateauScheduler};
    use crate::checkpoint::Stateful;
    use crate::optim::ParameterGroup;

    fn groups(rate: f64) -> Vec<ParameterGroup> {
        let (parameters, names) = (Vec::new(), Vec::new());
        vec![ParameterGroup {
            parameters,
            names,
            learning_rate: rate,
            initial_learning_rate: rate,
            weight_decay: 0.0,
        }]
    }

    #[test]
    fn a_constant_metric_divides_the_rate_at_the_twelfth_evaluation() {
        let mut group = groups(0.5);
        let mut scheduler = PlateauScheduler::new(&group);
        for evaluation in 1..=24 {
            scheduler.step_with_metric(&mut group, 1.0);
            // Once in the middle: it goes on from its state.
            if evaluation == 7 {
                let state = scheduler.state().expect("a state");
                scheduler = PlateauScheduler::new(&group);
                scheduler.load_state(state).expect("it fits");
            }
            let expected = if evaluation < 12 {
                0.5
            } else if evaluation < 23 {
                0.05
            } else {
                0.005
            };
            assert!(
                (group[0].learning_rate - expected).abs() < 1e-12,
                "{evaluation}"
            );
            assert_eq!(scheduler.last_rates(), [group[0].learning_rate]);
        }
    }

    #[test]
    fn a_new_peak_rate_is_reduced_as_far_as_the_old_one() {
        let mut group = groups(0.5);
        let mut scheduler = PlateauScheduler::new(&group);
        (0..12).for_each(|_| scheduler.step_with_metric(&mut group, 1.0));
        let state = scheduler.state().expect("a state");
        let mut new = groups(2.0);
        let mut resumed = PlateauScheduler::new(&new);
        resumed.load_state(state).expect("it fits");
        resumed.apply(&mut new);
        assert!((new[0].learning_rate - 0.2).abs() < 1e-12);
        assert_eq!(new[0].initial_learning_rate, 2.0);
    }

    #[test]
    fn a_rate_that_would_hardly_change_stays() {
        let mut group = groups(1e-9);
        let mut scheduler = PlateauScheduler::new(&group);
        (0..30).for_each(|_| scheduler.step_with_metric(&mut group, f64::NAN));
        assert_eq!(group[0].learning_rate, 1e-9);
    }
}
