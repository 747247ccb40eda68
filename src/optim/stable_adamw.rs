//! optimi's `StableAdamW` as 4.57 makes it (`stable_adamw`, beyond 4.34): AdamW whose rate shrinks, parameter by parameter,
//! where gradients outgrow their second moment. It needs no clipping of gradients.

use anyhow::Result;
use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

use super::buffered::{Active, Buffer, Buffered, Rule};
use super::{Optimizer, OptimizerChoice, OptimizerSettings, ParameterGroup, state};
use crate::error::Failure;
use crate::torch::{self, UpdateRule};

const SETTINGS: &[&str] = &["decouple_lr", "max_lr", "kahan_sum"];

/// Over groups. Settings: `decouple_lr` (false) makes weight decay independent of the peak rate, `max_lr` (the peak rate) is
/// what it is measured by then, `kahan_sum` (where weights are of half precision) is Kahan's summation.
pub fn create(choice: &OptimizerChoice, groups: Vec<ParameterGroup>) -> Result<Box<dyn Optimizer>> {
    let options = &choice.options;
    options.only("stable_adamw", SETTINGS)?;
    let peak = groups.first().map(|group| group.initial_learning_rate);
    let max_rate = options.number("max_lr")?.or(peak).unwrap_or(0.0);
    let is_decoupled = options.flag("decouple_lr")?.unwrap_or(false);
    if is_decoupled && max_rate <= 0.0 {
        let message = format!("decouple_lr needs a max_lr above 0, not {max_rate}");
        return Err(Failure::usage(message).into());
    }
    let rule = StableAdamW {
        adam: choice.adam.checked()?,
        max_rate: is_decoupled.then_some(max_rate),
        kahan: options.flag("kahan_sum")?.unwrap_or(true),
        steps: vec![0; groups.len()],
    };
    Ok(Box::new(Buffered::new(groups, rule)?))
}

#[derive(Debug)]
struct StableAdamW {
    adam: OptimizerSettings,
    /// Decay is measured by it, if decay does not depend on the rate.
    max_rate: Option<f64>,
    kahan: bool,
    /// Of each group: one count for all its parameters.
    steps: Vec<u64>,
}

/// The decay whose running mean is free of its start: `b (1 - b^(t-1)) / (1 - b^t)`.
fn debiased(beta: f64, step: u64) -> f64 {
    let power = beta.powf(step as f64);
    (power - beta) / (power - 1.0)
}

impl Rule for StableAdamW {
    fn buffers(&self, _name: &str, parameter: &Tensor) -> Result<Vec<Buffer>> {
        let mut buffers = vec![
            Buffer::like("exp_avg", parameter)?,
            Buffer::like("exp_avg_sq", parameter)?,
        ];
        if self.kahan && matches!(parameter.f_kind()?, Kind::BFloat16 | Kind::Half) {
            buffers.push(Buffer::like("kahan_comp", parameter)?);
        }
        Ok(buffers)
    }

    fn update(
        &mut self,
        index: usize,
        group: &ParameterGroup,
        active: &[Active<'_>],
    ) -> Result<()> {
        self.steps[index] += 1;
        let mut settings = self.adam.of_step(group);
        settings.beta1 = debiased(self.adam.beta1, self.steps[index]);
        settings.beta2 = debiased(self.adam.beta2, self.steps[index]);
        settings.rate_unit = self.max_rate.unwrap_or(1.0);
        let updated = active.iter().map(Active::updated);
        let (plain, compensated): (Vec<_>, Vec<_>) =
            updated.partition(|updated| updated.states.len() == 2);
        torch::update_step(UpdateRule::StableAdamw, &plain, &settings)?;
        torch::update_step(UpdateRule::StableAdamw, &compensated, &settings)
    }

    fn hyperparameters(&self, index: usize) -> Vec<(&'static str, Value)> {
        vec![
            ("beta1", json!(self.adam.beta1)),
            ("beta2", json!(self.adam.beta2)),
            ("eps", json!(self.adam.epsilon)),
            ("decouple_lr", json!(self.max_rate.is_some())),
            ("max_lr", json!(self.max_rate)),
            ("step", json!(self.steps[index])),
        ]
    }

    fn adopt(&mut self, index: usize, saved: &Map<String, Value>) {
        self.adam
            .adopt_betas(["beta1", "beta2"].map(|key| state::number(saved, key)));
        self.adam.adopt_epsilon(saved);
        self.steps[index] = saved
            .get("step")
            .and_then(Value::as_u64)
            .unwrap_or(self.steps[index]);
    }
}
