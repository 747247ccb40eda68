//! `torch.optim.Muon` for the matrices inside a network, AdamW for everything else (`muon`, beyond 4.34).
//!
//! Muon's step is a momentum made orthogonal, so it is meant for weights that map one hidden layer to the next. Embeddings
//! and output heads are matrices too, but rows of their own; as torch's page advises they go to AdamW, which is told by
//! their names ([`ROWS`]). Both use the rate of the schedule; `adjust_lr_fn=match_rms_adamw` scales Muon's updates so that a
//! rate tuned for AdamW fits.

use anyhow::Result;
use serde_json::{Map, Value, json};
use tch::Tensor;

use super::buffered::{Active, Buffer, Buffered, Rule};
use super::{Optimizer, OptimizerChoice, OptimizerSettings, ParameterGroup, state};
use crate::error::Failure;
use crate::torch::{self, UpdateRule};

const SETTINGS: &[&str] = &["momentum", "nesterov", "ns_steps", "adjust_lr_fn"];

/// Parts of the names of matrices whose rows stand for themselves.
const ROWS: &[&str] = &[
    "embed",
    "wte",
    "wpe",
    "lm_head",
    "classifier",
    "score",
    "qa_outputs",
    "decoder.weight",
];

/// torch's default, below which a norm is not divided by.
const EPSILON: f64 = 1e-7;
/// From here on torch refuses.
const MOST_ITERATIONS: u64 = 99;

/// Over groups. Settings: `momentum` (0.95), `nesterov` (true), `ns_steps` (5), `adjust_lr_fn` (original).
pub fn create(choice: &OptimizerChoice, groups: Vec<ParameterGroup>) -> Result<Box<dyn Optimizer>> {
    let options = &choice.options;
    options.only("muon", SETTINGS)?;
    let iterations = options.count("ns_steps")?.unwrap_or(5);
    if iterations > MOST_ITERATIONS {
        let message = format!("ns_steps {iterations} is more than {MOST_ITERATIONS}");
        return Err(Failure::usage(message).into());
    }
    let adjustments = [("original", false), ("match_rms_adamw", true)];
    let rule = Muon {
        adam: choice.adam.checked()?,
        momentum: options.number("momentum")?.unwrap_or(0.95),
        nesterov: options.flag("nesterov")?.unwrap_or(true),
        iterations: iterations as u32,
        match_rms_adamw: options
            .one_of("adjust_lr_fn", &adjustments)?
            .unwrap_or(false),
    };
    Ok(Box::new(Buffered::new(groups, rule)?))
}

#[derive(Debug)]
struct Muon {
    /// Of the parameters that Muon is not for.
    adam: OptimizerSettings,
    momentum: f64,
    nesterov: bool,
    iterations: u32,
    match_rms_adamw: bool,
}

fn is_for_muon(name: &str, parameter: &Tensor) -> bool {
    parameter.dim() == 2 && !ROWS.iter().any(|part| name.contains(part))
}

impl Rule for Muon {
    fn buffers(&self, name: &str, parameter: &Tensor) -> Result<Vec<Buffer>> {
        Ok(if is_for_muon(name, parameter) {
            vec![Buffer::like("momentum_buffer", parameter)?]
        } else {
            vec![
                Buffer::like("exp_avg", parameter)?,
                Buffer::like("exp_avg_sq", parameter)?,
            ]
        })
    }

    fn update(
        &mut self,
        _index: usize,
        group: &ParameterGroup,
        active: &[Active<'_>],
    ) -> Result<()> {
        let mut settings = self.adam.of_step(group);
        let updated = active.iter().map(Active::updated);
        let (matrices, others): (Vec<_>, Vec<_>) =
            updated.partition(|updated| updated.states.len() == 1);
        torch::update_step(UpdateRule::Adamw, &others, &settings)?;
        settings.beta1 = self.momentum;
        settings.epsilon = EPSILON;
        settings.nesterov = self.nesterov;
        settings.newton_schulz_steps = self.iterations;
        settings.match_rms_adamw = self.match_rms_adamw;
        torch::update_step(UpdateRule::Muon, &matrices, &settings)
    }

    fn hyperparameters(&self, _index: usize) -> Vec<(&'static str, Value)> {
        let adjustment = if self.match_rms_adamw {
            json!("match_rms_adamw")
        } else {
            json!("original")
        };
        vec![
            ("momentum", json!(self.momentum)),
            ("nesterov", json!(self.nesterov)),
            ("ns_steps", json!(self.iterations)),
            ("adjust_lr_fn", adjustment),
            ("betas", json!([self.adam.beta1, self.adam.beta2])),
            ("eps", json!(self.adam.epsilon)),
        ]
    }

    fn adopt(&mut self, _index: usize, saved: &Map<String, Value>) {
        self.adam.adopt(saved);
        let momentum = state::number(saved, "momentum");
        self.momentum = state::adopted(("momentum", self.momentum), momentum);
    }
}
