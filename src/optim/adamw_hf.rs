//! `transformers.optimization.AdamW` of 4.34 (`adamw_hf`): Adam whose decay comes after the update, on the new weights.

use anyhow::Result;
use serde_json::{Map, Value, json};
use tch::Tensor;

use super::buffered::{Active, Buffer, Buffered, Rule};
use super::{Optimizer, OptimizerChoice, OptimizerSettings, ParameterGroup};
use crate::torch::{self, UpdateRule};

/// Over groups. The setting `correct_bias` (default true) corrects the bias of the moments.
pub fn create(choice: &OptimizerChoice, groups: Vec<ParameterGroup>) -> Result<Box<dyn Optimizer>> {
    choice.options.only("adamw_hf", &["correct_bias"])?;
    let rule = AdamwHf {
        adam: choice.adam.checked()?,
        correct_bias: choice.options.flag("correct_bias")?.unwrap_or(true),
    };
    Ok(Box::new(Buffered::new(groups, rule)?))
}

#[derive(Debug)]
struct AdamwHf {
    adam: OptimizerSettings,
    correct_bias: bool,
}

impl Rule for AdamwHf {
    fn buffers(&self, _name: &str, parameter: &Tensor) -> Result<Vec<Buffer>> {
        Ok(vec![
            Buffer::like("exp_avg", parameter)?,
            Buffer::like("exp_avg_sq", parameter)?,
        ])
    }

    fn update(
        &mut self,
        _index: usize,
        group: &ParameterGroup,
        active: &[Active<'_>],
    ) -> Result<()> {
        let mut settings = self.adam.of_step(group);
        settings.correct_bias = self.correct_bias;
        let updated: Vec<_> = active.iter().map(Active::updated).collect();
        torch::update_step(UpdateRule::AdamwHf, &updated, &settings)
    }

    fn hyperparameters(&self, _index: usize) -> Vec<(&'static str, Value)> {
        vec![
            ("betas", json!([self.adam.beta1, self.adam.beta2])),
            ("eps", json!(self.adam.epsilon)),
            ("correct_bias", json!(self.correct_bias)),
        ]
    }

    fn adopt(&mut self, _index: usize, saved: &Map<String, Value>) {
        self.adam.adopt(saved);
        if let Some(correct) = saved.get("correct_bias").and_then(Value::as_bool)
            && correct != self.correct_bias
        {
            tracing::warn!("correct_bias: the checkpoint's {correct} is used");
            self.correct_bias = correct;
        }
    }
}
