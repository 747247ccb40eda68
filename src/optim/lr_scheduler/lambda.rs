//! `torch.optim.lr_scheduler.LambdaLR`: each group's rate is its initial rate times a factor.

use anyhow::Result;
use serde_json::{Value, json};

use super::{LrScheduler, Schedule, misfit, numbers};
use crate::checkpoint::{PartState, Stateful};
use crate::optim::ParameterGroup;

/// A schedule of steps over groups.
#[derive(Debug)]
pub struct LambdaScheduler {
    schedule: Box<dyn Schedule>,
    base_rates: Vec<f64>,
    last_epoch: u64,
    step_count: u64,
    last_rates: Vec<f64>,
}

impl LambdaScheduler {
    /// Sets the groups to the rates of the first step.
    pub fn new(schedule: Box<dyn Schedule>, groups: &mut [ParameterGroup]) -> Self {
        let base_rates = groups
            .iter()
            .map(|group| group.initial_learning_rate)
            .collect();
        let mut scheduler = Self {
            schedule,
            base_rates,
            last_epoch: 0,
            step_count: 1,
            last_rates: Vec::new(),
        };
        scheduler.apply(groups);
        scheduler
    }
}

impl LrScheduler for LambdaScheduler {
    fn step(&mut self, groups: &mut [ParameterGroup]) {
        self.step_count += 1;
        self.last_epoch += 1;
        self.apply(groups);
    }

    fn step_with_metric(&mut self, _groups: &mut [ParameterGroup], _metric: f64) {}

    fn is_per_evaluation(&self) -> bool {
        false
    }

    fn last_rates(&self) -> &[f64] {
        &self.last_rates
    }

    fn apply(&mut self, groups: &mut [ParameterGroup]) {
        let factor = self.schedule.factor(self.last_epoch);
        self.last_rates.clear();
        self.last_rates
            .extend(self.base_rates.iter().map(|base| base * factor));
        for ((group, base), rate) in groups
            .iter_mut()
            .zip(&self.base_rates)
            .zip(&self.last_rates)
        {
            group.initial_learning_rate = *base;
            group.learning_rate = *rate;
        }
    }
}

impl Stateful for LambdaScheduler {
    fn state(&self) -> Result<PartState> {
        let json = json!({
            "base_lrs": self.base_rates,
            "last_epoch": self.last_epoch,
            "_step_count": self.step_count,
            "_last_lr": self.last_rates,
        });
        Ok(PartState {
            tensors: Vec::new(),
            json,
        })
    }

    /// The place in the schedule comes from `state`. Where its base rates are not those of this run, the run's win: a
    /// learning rate given at resumption holds.
    fn load_state(&mut self, state: PartState) -> Result<()> {
        let count = |key: &str| state.json.get(key).and_then(Value::as_u64);
        let rates = |key: &str| numbers(&state.json, key);
        let last_epoch =
            count("last_epoch").ok_or_else(|| misfit("last_epoch is not a number of steps"))?;
        let step_count =
            count("_step_count").ok_or_else(|| misfit("_step_count is not a number of steps"))?;
        let base_rates = rates("base_lrs").ok_or_else(|| misfit("base_lrs are not numbers"))?;
        let last_rates = rates("_last_lr").ok_or_else(|| misfit("_last_lr are not numbers"))?;
        let expected = self.base_rates.len();
        if base_rates.len() != expected || last_rates.len() != expected {
            let found = base_rates.len();
            return Err(misfit(&format!(
                "it has rates of {found} groups, the optimizer {expected}"
            ))
            .into());
        }
        (self.last_epoch, self.step_count, self.last_rates) = (last_epoch, step_count, last_rates);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{LambdaScheduler, LrScheduler};
    use crate::checkpoint::{PartState, Stateful};
    use crate::optim::ParameterGroup;
    use crate::optim::lr_scheduler::Schedule;
    use serde_json::json;

    #[derive(Debug)]
    struct Halves;

    impl Schedule for Halves {
        fn factor(&self, step: u64) -> f64 {
            0.5_f64.powi(step as i32)
        }
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
    fn a_new_learning_rate_wins_and_the_place_stays() {
        let mut group = groups(1.0);
        let mut scheduler = LambdaScheduler::new(Box::new(Halves), &mut group);
        let json = json!({"base_lrs": [8.0], "last_epoch": 2, "_step_count": 3, "_last_lr": [2.0]});
        scheduler
            .load_state(PartState {
                tensors: Vec::new(),
                json,
            })
            .expect("it fits");
        scheduler.apply(&mut group);
        assert_eq!(
            (group[0].learning_rate, scheduler.last_rates()),
            (0.25, [0.25].as_slice())
        );
    }

    #[test]
    fn a_state_that_does_not_fit_changes_nothing() {
        let mut group = groups(1.0);
        let mut scheduler = LambdaScheduler::new(Box::new(Halves), &mut group);
        for json in [
            json!({}),
            json!({"base_lrs": [1.0, 1.0], "last_epoch": 2, "_step_count": 3, "_last_lr": [0.2, 0.2]}),
            json!({"base_lrs": [1.0], "last_epoch": -1, "_step_count": 3, "_last_lr": [0.2]}),
            json!({"base_lrs": ["x"], "last_epoch": 2, "_step_count": 3, "_last_lr": [0.2]}),
        ] {
            assert!(
                scheduler
                    .load_state(PartState {
                        tensors: Vec::new(),
                        json
                    })
                    .is_err()
            );
            assert_eq!(scheduler.state().expect("a state").json["last_epoch"], 0);
        }
    }
}
