//! The plugins of a run: loaded in order, handed to the trainer as the same boxes as built-ins.

use anyhow::{Result, ensure};

use crate::callback::Callback;
use crate::config::run::Run;
use crate::error::Failure;
use crate::metric::{LogitsProcessor, Metric};

/// Loaded plugins.
#[derive(Debug, Default)]
pub(super) struct Plugins {}

impl Plugins {
    pub(super) fn load(run: &Run) -> Result<Self> {
        ensure!(run.plugins.is_empty(), Failure::usage("this build has no plugins"));
        Ok(Self::default())
    }

    pub(super) fn metrics(&self) -> Vec<Box<dyn Metric>> {
        Vec::new()
    }

    pub(super) fn logits(&self) -> Vec<Box<dyn LogitsProcessor>> {
        Vec::new()
    }

    pub(super) fn callbacks(&self) -> Vec<Box<dyn Callback>> {
        Vec::new()
    }

    pub(super) fn usage_lines(&self, _training_seconds: f64) -> Vec<String> {
        Vec::new()
    }
}
