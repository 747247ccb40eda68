//! `transformers.optimization.AdafactorSchedule`: reports the rates of an Adafactor that schedules itself; sets none.

use anyhow::Result;
use serde_json::{Value, json};

use super::{LrScheduler, misfit, numbers};
use crate::checkpoint::{PartState, Stateful};
use crate::optim::ParameterGroup;

/// A proxy; the optimizer writes the rate it has used into its groups.
#[derive(Debug)]
pub struct AdafactorScheduler {
    initial_rate: f64,
    last_epoch: u64,
    last_rates: Vec<f64>,
}

impl AdafactorScheduler {
    /// `initial_rate` is what is reported before the first step; the reference's default is 0.
    pub fn new(initial_rate: f64, groups: &[ParameterGroup]) -> Self {
        Self {
            initial_rate,
            last_epoch: 0,
            last_rates: vec![initial_rate; groups.len()],
        }
    }
}

impl LrScheduler for AdafactorScheduler {
    fn step(&mut self, groups: &mut [ParameterGroup]) {
        self.last_epoch += 1;
        self.last_rates = groups.iter().map(|group| group.learning_rate).collect();
    }

    fn step_with_metric(&mut self, _groups: &mut [ParameterGroup], _metric: f64) {}

    fn is_per_evaluation(&self) -> bool {
        false
    }

    fn last_rates(&self) -> &[f64] {
        &self.last_rates
    }

    fn apply(&mut self, _groups: &mut [ParameterGroup]) {}
}

impl Stateful for AdafactorScheduler {
    fn state(&self) -> Result<PartState> {
        let json = json!({
            "base_lrs": vec![self.initial_rate; self.last_rates.len()],
            "last_epoch": self.last_epoch,
            "_step_count": self.last_epoch + 1,
            "_last_lr": self.last_rates,
        });
        Ok(PartState {
            tensors: Vec::new(),
            json,
        })
    }

    fn load_state(&mut self, state: PartState) -> Result<()> {
        let last_epoch = state.json.get("last_epoch").and_then(Value::as_u64);
        self.last_epoch = last_epoch.ok_or_else(|| misfit("it has no last_epoch"))?;
        let rates = numbers(&state.json, "_last_lr").ok_or_else(|| misfit("it has no _last_lr"))?;
        if rates.len() != self.last_rates.len() {
            return Err(misfit("it has rates of another number of groups").into());
        }
        self.last_rates = rates;
        Ok(())
    }
}
