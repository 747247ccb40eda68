//! Optimizers, parameter groups, gradient clipping and learning-rate schedules.

use anyhow::Result;
use tch::Tensor;

use crate::checkpoint::Stateful;

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
    /// One update. Parameters without a gradient are left alone.
    fn step(&mut self) -> Result<()>;
}
