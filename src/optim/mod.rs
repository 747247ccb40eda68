//! Optimizers, parameter groups, gradient clipping and learning-rate schedules.

use anyhow::Result;
use tch::Tensor;

use crate::checkpoint::Stateful;
use crate::error::Failure;

mod adafactor;
mod adamw;
pub mod clip;
pub mod groups;
pub mod lr_scheduler;
mod masters;
mod sgd;
mod state;

pub use adafactor::{Adafactor, AdafactorSettings};
pub use adamw::AdamW;
pub use lr_scheduler::LrScheduler;
pub use masters::Masters;
pub use sgd::Sgd;

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

/// Makes one optimizer over groups.
type Make = fn(Vec<ParameterGroup>, OptimizerSettings) -> Result<Box<dyn Optimizer>>;

/// The optimizers by their Hugging Face names (field 70).
#[rustfmt::skip]
pub const BUILTIN: &[(&str, Make)] = &[
    ("adamw_torch", |groups, settings| Ok(Box::new(AdamW::new(groups, settings, false)?))),
    ("adamw_torch_fused", |groups, settings| Ok(Box::new(AdamW::new(groups, settings, true)?))),
    ("sgd", |groups, _| Ok(Box::new(Sgd::new(groups)?))),
    ("adafactor", |groups, _| Ok(Box::new(Adafactor::new(groups, AdafactorSettings::as_trainer())?))),
];

/// Makes the optimizer with this name.
pub fn create(
    name: &str,
    groups: Vec<ParameterGroup>,
    settings: OptimizerSettings,
) -> Result<Box<dyn Optimizer>> {
    let Some((_, make)) = BUILTIN.iter().find(|(known, _)| *known == name) else {
        let known: Vec<_> = BUILTIN.iter().map(|(known, _)| *known).collect();
        return Err(Failure::usage(format!(
            "optimizer {name:?} is not implemented; known are {}",
            known.join(", ")
        ))
        .into());
    };
    make(groups, settings)
}
