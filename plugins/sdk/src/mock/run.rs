//! The run as a test describes it; what a callback asks for is noted.

use std::cell::RefCell;

use super::rng::Rng;
use super::tensor::Tensor;
use super::types::{Better, Error};

/// The run as a whole.
#[derive(Debug, Default)]
pub struct Run {
    /// Training arguments by name, as JSON.
    pub arguments: Vec<(String, String)>,
}

impl Run {
    pub fn id(&self) -> String {
        "test/plugin".to_owned()
    }

    pub fn name(&self) -> String {
        "plugin".to_owned()
    }

    pub fn rank(&self) -> u32 {
        0
    }

    pub fn world_size(&self) -> u32 {
        1
    }

    pub fn is_main(&self) -> bool {
        true
    }

    pub fn arg(&self, name: &str) -> Option<String> {
        let known = self.arguments.iter().find(|(known, _)| known == name);
        known.map(|(_, value)| value.clone())
    }

    pub fn host_version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    pub fn has(&self, _feature: &str) -> bool {
        true
    }
}

/// What `init` asked for.
#[derive(Debug, Default)]
pub struct Setup {
    pub every_steps: RefCell<Option<u32>>,
    pub main_rank_only: RefCell<bool>,
    pub metrics: RefCell<Vec<String>>,
}

impl Setup {
    pub fn every_steps(&self, n: u32) {
        self.every_steps.replace(Some(n));
    }

    pub fn main_rank_only(&self) {
        self.main_rank_only.replace(true);
    }

    pub fn declare_metric(&self, name: &str, _unit: &str, _better: Better) {
        self.metrics.borrow_mut().push(name.to_owned());
    }
}

/// Steps, epochs and time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    pub global_step: u64,
    pub max_steps: u64,
    pub micro_step: u64,
    pub epoch: f64,
    pub total_epochs: f64,
    pub elapsed_ms: u64,
}

/// Wishes and values of one call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// The reason to stop training.
    pub stop_training: Option<String>,
    /// The reason to stop the epoch.
    pub stop_epoch: Option<String>,
    pub save: bool,
    pub evaluate: bool,
    pub log: bool,
    /// Values for the next log entry.
    pub emitted: Vec<(String, f64)>,
}

/// One hook call.
#[derive(Debug, Default)]
pub struct Ctx {
    pub progress: Progress,
    pub metrics: Vec<(String, f64)>,
    pub best_metric: Option<f64>,
    pub learning_rates: Vec<f64>,
    pub gradient_norm: Option<f64>,
    pub parameters: Vec<(String, Tensor)>,
    pub gradients: Vec<(String, Tensor)>,
    pub asked: RefCell<Asked>,
}

impl Ctx {
    pub fn progress(&self) -> Progress {
        self.progress
    }

    pub fn metric(&self, name: &str) -> Option<f64> {
        let known = self.metrics.iter().find(|(known, _)| known == name);
        known.map(|(_, value)| *value)
    }

    pub fn best_metric(&self) -> Option<f64> {
        self.best_metric
    }

    pub fn learning_rates(&self) -> Vec<f64> {
        self.learning_rates.clone()
    }

    pub fn gradient_norm(&self) -> Option<f64> {
        self.gradient_norm
    }

    /// All of them: patterns are the host's.
    pub fn parameters(&self, _pattern: &str) -> Result<Vec<(String, Tensor)>, Error> {
        Ok(self.parameters.clone())
    }

    /// All of them: patterns are the host's.
    pub fn gradients(&self, _pattern: &str) -> Result<Vec<(String, Tensor)>, Error> {
        Ok(self.gradients.clone())
    }

    pub fn rng(&self, purpose: &str) -> Rng {
        let seed = purpose
            .bytes()
            .fold(self.progress.global_step, |seed, byte| {
                seed.wrapping_mul(31).wrapping_add(u64::from(byte))
            });
        Rng::new(seed)
    }

    pub fn is_stopping(&self) -> bool {
        self.asked.borrow().stop_training.is_some()
    }

    pub fn stop_training(&self, reason: &str) -> Result<(), Error> {
        self.asked.borrow_mut().stop_training = Some(reason.to_owned());
        Ok(())
    }

    pub fn stop_epoch(&self, reason: &str) -> Result<(), Error> {
        self.asked.borrow_mut().stop_epoch = Some(reason.to_owned());
        Ok(())
    }

    pub fn saves(&self) -> bool {
        self.asked.borrow().save
    }

    pub fn set_save(&self, on: bool) -> Result<(), Error> {
        self.asked.borrow_mut().save = on;
        Ok(())
    }

    pub fn evaluates(&self) -> bool {
        self.asked.borrow().evaluate
    }

    pub fn set_evaluate(&self, on: bool) -> Result<(), Error> {
        self.asked.borrow_mut().evaluate = on;
        Ok(())
    }

    pub fn logs(&self) -> bool {
        self.asked.borrow().log
    }

    pub fn set_log(&self, on: bool) -> Result<(), Error> {
        self.asked.borrow_mut().log = on;
        Ok(())
    }

    pub fn emit(&self, name: &str, value: f64) -> Result<(), Error> {
        self.asked
            .borrow_mut()
            .emitted
            .push((name.to_owned(), value));
        Ok(())
    }

    pub fn emit_tensor(&self, name: &str, value: &Tensor) -> Result<(), Error> {
        self.emit(name, value.item()?)
    }
}
