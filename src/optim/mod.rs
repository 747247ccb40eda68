//! Optimizers, parameter groups, gradient clipping and learning-rate schedules.

use anyhow::Result;
use serde_json::{Map, Value};
use tch::Tensor;

use crate::checkpoint::Stateful;
use crate::error::Failure;
use crate::torch::UpdateSettings;

mod adafactor;
mod adamw;
mod adamw_hf;
mod adaptive_sgd;
mod anyprecision;
mod buffered;
pub mod clip;
pub mod groups;
pub mod lr_scheduler;
mod masters;
mod muon;
mod options;
mod quantised;
#[cfg(test)]
mod recorded;
mod schedule_free;
mod sgd;
mod stable_adamw;
mod state;

pub use adafactor::{Adafactor, AdafactorSettings};
pub use adamw::AdamW;
pub use lr_scheduler::LrScheduler;
pub use masters::Masters;
pub use options::Options;
pub use sgd::Sgd;

use quantised::Bits;

/// Parameters that share hyperparameters (spec 4.2).
#[derive(Debug)]
pub struct ParameterGroup {
    /// The leaf tensors, in model order.
    pub parameters: Vec<Tensor>,
    /// Their names, for errors and checkpoints.
    pub names: Vec<String>,
    /// Current learning rate.
    pub learning_rate: f64,
    /// The rate at construction; schedules multiply it.
    pub initial_learning_rate: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// What the parameters are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Gradients are taken at them.
    Training,
    /// They are evaluated or saved.
    Evaluation,
}

/// Updates parameters in place from their gradients. State lives beside the parameters, on their device.
pub trait Optimizer: Stateful {
    /// The groups: 0 decays, 1 does not.
    fn groups(&self) -> &[ParameterGroup];
    /// The groups, to set learning rates.
    fn groups_mut(&mut self) -> &mut [ParameterGroup];
    /// Takes over the model's gradients if it updates copies of its parameters: what is then unscaled and clipped.
    fn gather(&mut self) -> Result<Option<Vec<Tensor>>> {
        Ok(None)
    }
    /// One update. Parameters without a gradient are left alone.
    fn step(&mut self) -> Result<()>;
    /// Puts the weights of a phase into the parameters, for optimizers that train other weights than they give. The loop
    /// enters training before each forward pass, and evaluation before each evaluation and save; to enter the present phase
    /// costs nothing. Nothing else may change parameters or load a state in between.
    fn enter(&mut self, _phase: Phase) -> Result<()> {
        Ok(())
    }
    /// The parameters have been given other weights (the best ones): what the optimizer keeps of the old ones must go.
    fn weights_replaced(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Hyperparameters that are not a group's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerSettings {
    /// Decay of the first moment (Adam family).
    pub beta1: f64,
    /// Decay of the second moment (Adam family).
    pub beta2: f64,
    /// Added to the denominator (Adam family).
    pub epsilon: f64,
}

impl OptimizerSettings {
    /// Itself, unless it is what torch's constructors refuse.
    fn checked(self) -> Result<Self, Failure> {
        for (name, value) in [("adam_beta1", self.beta1), ("adam_beta2", self.beta2)] {
            if !(0.0..1.0).contains(&value) {
                let message = format!("{name} {value} is not at least 0 and below 1");
                return Err(Failure::usage(message));
            }
        }
        if !self.epsilon.is_finite() || self.epsilon < 0.0 {
            let epsilon = self.epsilon;
            let message = format!("adam_epsilon {epsilon} is not a number of at least 0");
            return Err(Failure::usage(message));
        }
        Ok(self)
    }

    /// The numbers of a step of `group`.
    fn of_step(self, group: &ParameterGroup) -> UpdateSettings {
        UpdateSettings {
            learning_rate: group.learning_rate,
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.epsilon,
            weight_decay: group.weight_decay,
            correct_bias: true,
            rate_unit: 1.0,
            average_weight: 0.0,
            nesterov: false,
            newton_schulz_steps: 0,
            match_rms_adamw: false,
        }
    }

    /// Takes over what a saved group says.
    fn adopt(&mut self, saved: &Map<String, Value>) {
        self.adopt_betas(state::betas(saved));
        self.adopt_epsilon(saved);
    }

    fn adopt_betas(&mut self, [beta1, beta2]: [Option<f64>; 2]) {
        self.beta1 = state::adopted(("adam_beta1", self.beta1), beta1);
        self.beta2 = state::adopted(("adam_beta2", self.beta2), beta2);
    }

    fn adopt_epsilon(&mut self, saved: &Map<String, Value>) {
        let epsilon = state::number(saved, "eps");
        self.epsilon = state::adopted(("adam_epsilon", self.epsilon), epsilon);
    }
}

/// Which optimizer, and what its arguments say.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerChoice {
    /// One of [`BUILTIN`].
    pub name: String,
    /// Hyperparameters of the Adam family.
    pub adam: OptimizerSettings,
    /// What only this optimizer has (`optim_args`).
    pub options: Options,
    /// `warmup_steps` as written: schedule_free_adamw warms up by itself.
    pub warmup_steps: u64,
}

/// Makes one optimizer over groups.
type Make = fn(&OptimizerChoice, Vec<ParameterGroup>) -> Result<Box<dyn Optimizer>>;

/// The optimizers by their Hugging Face names (field 70).
#[rustfmt::skip]
pub const BUILTIN: &[(&str, Make)] = &[
    ("adamw_torch", |choice, groups| adamw(choice, groups, false)),
    ("adamw_torch_fused", |choice, groups| adamw(choice, groups, true)),
    ("adamw_apex_fused", |choice, groups| adamw(choice, groups, true)),
    ("adamw_hf", adamw_hf::create),
    ("adamw_anyprecision", anyprecision::create),
    ("sgd", |choice, groups| { choice.options.only("sgd", &[])?; Ok(Box::new(Sgd::new(groups)?)) }),
    ("adagrad", adaptive_sgd::adagrad),
    ("rmsprop", adaptive_sgd::rmsprop),
    ("adafactor", adafactor),
    ("lion_32bit", |choice, groups| quantised::lion(choice, groups, Bits::ThirtyTwo)),
    ("adamw_bnb_8bit", |choice, groups| quantised::adamw(choice, groups, Bits::Eight)),
    ("adamw_8bit", |choice, groups| quantised::adamw(choice, groups, Bits::Eight)),
    ("paged_adamw_32bit", |choice, groups| quantised::adamw(choice, groups, Bits::ThirtyTwo)),
    ("paged_adamw_8bit", |choice, groups| quantised::adamw(choice, groups, Bits::Eight)),
    ("lion_8bit", |choice, groups| quantised::lion(choice, groups, Bits::Eight)),
    ("paged_lion_32bit", |choice, groups| quantised::lion(choice, groups, Bits::ThirtyTwo)),
    ("paged_lion_8bit", |choice, groups| quantised::lion(choice, groups, Bits::Eight)),
    ("muon", muon::create),
    ("schedule_free_adamw", schedule_free::create),
    ("stable_adamw", stable_adamw::create),
];

fn adamw(
    choice: &OptimizerChoice,
    groups: Vec<ParameterGroup>,
    fused: bool,
) -> Result<Box<dyn Optimizer>> {
    choice.options.only(&choice.name, &[])?;
    Ok(Box::new(AdamW::new(groups, choice.adam, fused)?))
}

fn adafactor(choice: &OptimizerChoice, groups: Vec<ParameterGroup>) -> Result<Box<dyn Optimizer>> {
    choice.options.only("adafactor", &[])?;
    let settings = AdafactorSettings::as_trainer();
    Ok(Box::new(Adafactor::new(groups, settings)?))
}

/// How many tensors as large as a parameter a state keeps for it, at most: what a checkpoint needs room for.
pub fn state_copies(name: &str) -> u64 {
    match name {
        "adamw_anyprecision" | "schedule_free_adamw" | "stable_adamw" => 3,
        _ => 2,
    }
}

/// Makes the chosen optimizer.
pub fn create(choice: &OptimizerChoice, groups: Vec<ParameterGroup>) -> Result<Box<dyn Optimizer>> {
    let name = &choice.name;
    let Some((_, make)) = BUILTIN.iter().find(|(known, _)| known == name) else {
        let known: Vec<_> = BUILTIN.iter().map(|(known, _)| *known).collect();
        return Err(Failure::usage(format!(
            "optimizer {name:?} is not implemented; known are {}",
            known.join(", ")
        ))
        .into());
    };
    make(choice, groups)
}
