//! `torch.optim.Adagrad` and `torch.optim.RMSprop` as the Trainer uses them: only the rate is set, weight decay is plain L2.

use anyhow::Result;
use serde_json::{Map, Value, json};
use tch::Tensor;

use super::buffered::{Active, Buffer, Buffered, Rule};
use super::{Optimizer, OptimizerChoice, OptimizerSettings, ParameterGroup, state};
use crate::torch::{self, UpdateRule};

/// Adagrad over groups.
pub fn adagrad(
    choice: &OptimizerChoice,
    groups: Vec<ParameterGroup>,
) -> Result<Box<dyn Optimizer>> {
    choice.options.only("adagrad", &[])?;
    Ok(Box::new(Buffered::new(groups, Adagrad)?))
}

/// RMSprop over groups.
pub fn rmsprop(
    choice: &OptimizerChoice,
    groups: Vec<ParameterGroup>,
) -> Result<Box<dyn Optimizer>> {
    choice.options.only("rmsprop", &[])?;
    Ok(Box::new(Buffered::new(groups, Rmsprop)?))
}

/// The constructor's defaults.
const ADAGRAD_EPSILON: f64 = 1e-10;
const RMSPROP_EPSILON: f64 = 1e-8;
const RMSPROP_ALPHA: f64 = 0.99;

#[derive(Debug)]
struct Adagrad;

impl Rule for Adagrad {
    fn buffers(&self, _name: &str, parameter: &Tensor) -> Result<Vec<Buffer>> {
        Ok(vec![Buffer::like("sum", parameter)?])
    }

    fn update(
        &mut self,
        _index: usize,
        group: &ParameterGroup,
        active: &[Active<'_>],
    ) -> Result<()> {
        let numbers = OptimizerSettings {
            beta1: 0.0,
            beta2: 0.0,
            epsilon: ADAGRAD_EPSILON,
        };
        let updated: Vec<_> = active.iter().map(Active::updated).collect();
        torch::update_step(UpdateRule::Adagrad, &updated, &numbers.of_step(group))
    }

    fn hyperparameters(&self, _index: usize) -> Vec<(&'static str, Value)> {
        vec![
            ("lr_decay", json!(0)),
            ("eps", json!(ADAGRAD_EPSILON)),
            ("initial_accumulator_value", json!(0)),
            ("foreach", Value::Null),
            ("maximize", json!(false)),
            ("differentiable", json!(false)),
            ("fused", Value::Null),
        ]
    }

    fn adopt(&mut self, index: usize, saved: &Map<String, Value>) {
        let fixed = [("lr_decay", 0.0), ("eps", ADAGRAD_EPSILON)];
        state::tell_fixed(("adagrad", index), saved, &fixed);
    }
}

#[derive(Debug)]
struct Rmsprop;

impl Rule for Rmsprop {
    fn buffers(&self, _name: &str, parameter: &Tensor) -> Result<Vec<Buffer>> {
        Ok(vec![Buffer::like("square_avg", parameter)?])
    }

    fn update(
        &mut self,
        _index: usize,
        group: &ParameterGroup,
        active: &[Active<'_>],
    ) -> Result<()> {
        let numbers = OptimizerSettings {
            beta1: 0.0,
            beta2: RMSPROP_ALPHA,
            epsilon: RMSPROP_EPSILON,
        };
        let updated: Vec<_> = active.iter().map(Active::updated).collect();
        torch::update_step(UpdateRule::Rmsprop, &updated, &numbers.of_step(group))
    }

    fn hyperparameters(&self, _index: usize) -> Vec<(&'static str, Value)> {
        vec![
            ("momentum", json!(0)),
            ("alpha", json!(RMSPROP_ALPHA)),
            ("eps", json!(RMSPROP_EPSILON)),
            ("centered", json!(false)),
            ("capturable", json!(false)),
            ("foreach", Value::Null),
            ("maximize", json!(false)),
            ("differentiable", json!(false)),
        ]
    }

    fn adopt(&mut self, index: usize, saved: &Map<String, Value>) {
        let fixed = [
            ("momentum", 0.0),
            ("alpha", RMSPROP_ALPHA),
            ("eps", RMSPROP_EPSILON),
        ];
        state::tell_fixed(("rmsprop", index), saved, &fixed);
    }
}
