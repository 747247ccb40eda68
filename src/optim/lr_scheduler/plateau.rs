//! `torch.optim.lr_scheduler.ReduceLROnPlateau`: the rate is divided when a metric has not improved for a while. The metric is
//! minimised, whatever `greater_is_better` says, unless the setting `mode` says otherwise.

use anyhow::Result;
use serde_json::{Value, json};

use super::{LrScheduler, misfit, numbers};
use crate::checkpoint::{PartState, Stateful};
use crate::error::Failure;
use crate::optim::{Options, ParameterGroup};

const SETTINGS: &[&str] = &[
    "mode",
    "factor",
    "patience",
    "threshold",
    "threshold_mode",
    "cooldown",
    "min_lr",
    "eps",
];

/// What decides when and how the rate is divided.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Plateau {
    /// A metric is better if it is larger.
    maximise: bool,
    /// The rate is multiplied by it.
    factor: f64,
    /// Evaluations without improvement that are borne.
    patience: u64,
    /// Smallest improvement that counts.
    threshold: f64,
    /// The threshold is a number, not a share of the best metric.
    absolute: bool,
    /// Evaluations after a division that do not count.
    cooldown: u64,
    /// The rate is not divided below it.
    least_rate: f64,
    /// Smaller changes of the rate are not made.
    least_change: f64,
}

impl Plateau {
    fn read(options: &Options) -> Result<Self> {
        options.only("reduce_lr_on_plateau", SETTINGS)?;
        let number = |key: &str, default: f64| anyhow::Ok(options.number(key)?.unwrap_or(default));
        let modes = [("min", false), ("max", true)];
        let threshold_modes = [("rel", false), ("abs", true)];
        let factor = number("factor", 0.1)?;
        if !(0.0..1.0).contains(&factor) {
            let message = format!("factor {factor} is not at least 0 and below 1");
            return Err(Failure::usage(message).into());
        }
        Ok(Self {
            maximise: options.one_of("mode", &modes)?.unwrap_or(false),
            factor,
            patience: options.count("patience")?.unwrap_or(10),
            threshold: number("threshold", 1e-4)?,
            absolute: options
                .one_of("threshold_mode", &threshold_modes)?
                .unwrap_or(false),
            cooldown: options.count("cooldown")?.unwrap_or(0),
            least_rate: number("min_lr", 0.0)?,
            least_change: number("eps", 1e-8)?,
        })
    }

    fn is_better(&self, metric: f64, best: f64) -> bool {
        match (self.maximise, self.absolute) {
            (false, false) => metric < best * (1.0 - self.threshold),
            (false, true) => metric < best - self.threshold,
            (true, false) => metric > best * (self.threshold + 1.0),
            (true, true) => metric > best + self.threshold,
        }
    }

    fn mode(&self) -> &'static str {
        if self.maximise { "max" } else { "min" }
    }

    fn worst(&self) -> f64 {
        if self.maximise {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        }
    }

    fn divide(&self, groups: &mut [ParameterGroup]) {
        for group in groups {
            let reduced = f64::max(group.learning_rate * self.factor, self.least_rate);
            if group.learning_rate - reduced > self.least_change {
                group.learning_rate = reduced;
            }
        }
    }
}

/// A schedule of evaluations over groups.
#[derive(Debug)]
pub struct PlateauScheduler {
    plateau: Plateau,
    best: f64,
    bad_evaluations: u64,
    cooldown: u64,
    last_epoch: u64,
    base_rates: Vec<f64>,
    last_rates: Vec<f64>,
}

impl PlateauScheduler {
    /// The groups keep their rates. Settings are those of torch's class: `mode` (min), `factor` (0.1), `patience` (10),
    /// `threshold` (1e-4), `threshold_mode` (rel), `cooldown` (0), `min_lr` (0), `eps` (1e-8).
    pub fn new(options: &Options, groups: &[ParameterGroup]) -> Result<Self> {
        let plateau = Plateau::read(options)?;
        let base = |group: &ParameterGroup| group.initial_learning_rate;
        let last_rates = groups.iter().map(|group| group.learning_rate).collect();
        Ok(Self {
            base_rates: groups.iter().map(base).collect(),
            best: plateau.worst(),
            bad_evaluations: 0,
            cooldown: 0,
            last_epoch: 0,
            last_rates,
            plateau,
        })
    }
}

impl LrScheduler for PlateauScheduler {
    fn step(&mut self, _groups: &mut [ParameterGroup]) {}

    fn step_with_metric(&mut self, groups: &mut [ParameterGroup], metric: f64) {
        self.last_epoch += 1;
        if self.plateau.is_better(metric, self.best) {
            self.best = metric;
            self.bad_evaluations = 0;
        } else {
            self.bad_evaluations += 1;
        }
        if self.cooldown > 0 {
            self.cooldown -= 1;
            self.bad_evaluations = 0;
        }
        if self.bad_evaluations > self.plateau.patience {
            self.plateau.divide(groups);
            self.cooldown = self.plateau.cooldown;
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
            "factor": self.plateau.factor,
            "patience": self.plateau.patience,
            "threshold": self.plateau.threshold,
            "mode": self.plateau.mode(),
            "threshold_mode": if self.plateau.absolute { "abs" } else { "rel" },
            "cooldown": self.plateau.cooldown,
            "eps": self.plateau.least_change,
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
        let mode = state.json.get("mode").and_then(Value::as_str);
        self.best = state
            .json
            .get("best")
            .and_then(Value::as_f64)
            // The best of the other direction says nothing.
            .filter(|_| mode == Some(self.plateau.mode()))
            .unwrap_or(self.plateau.worst());
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
    use crate::optim::options::testing::options;
    use serde_json::json;

    fn plateau(settings: serde_json::Value, groups: &[ParameterGroup]) -> PlateauScheduler {
        PlateauScheduler::new(&options(settings), groups).expect("valid")
    }

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
        let mut scheduler = plateau(json!({}), &group);
        for evaluation in 1..=24 {
            scheduler.step_with_metric(&mut group, 1.0);
            // Once in the middle: it goes on from its state.
            if evaluation == 7 {
                let state = scheduler.state().expect("a state");
                scheduler = plateau(json!({}), &group);
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
        let mut scheduler = plateau(json!({}), &group);
        (0..12).for_each(|_| scheduler.step_with_metric(&mut group, 1.0));
        let state = scheduler.state().expect("a state");
        let mut new = groups(2.0);
        let mut resumed = plateau(json!({}), &new);
        resumed.load_state(state).expect("it fits");
        resumed.apply(&mut new);
        assert!((new[0].learning_rate - 0.2).abs() < 1e-12);
        assert_eq!(new[0].initial_learning_rate, 2.0);
    }

    #[test]
    fn a_rate_that_would_hardly_change_stays() {
        let mut group = groups(1e-9);
        let mut scheduler = plateau(json!({}), &group);
        (0..30).for_each(|_| scheduler.step_with_metric(&mut group, f64::NAN));
        assert_eq!(group[0].learning_rate, 1e-9);
    }
}
