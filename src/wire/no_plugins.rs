//! A build without WebAssembly: plugins are refused, built-ins do their work.

use anyhow::{Result, ensure};

use crate::callback::Callback;
use crate::config::run::Run;
use crate::error::Failure;
use crate::metric::{LogitsProcessor, Metric};

/// No plugins.
#[derive(Debug)]
pub(super) struct Plugins;

impl Plugins {
    pub(super) fn load(run: &Run) -> Result<Self> {
        let message =
            "this build of host has no plugins (it was made without the feature `plugin`)";
        ensure!(run.plugins.is_empty(), Failure::usage(message));
        Ok(Self)
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

    pub(super) fn close(&self) -> Result<()> {
        Ok(())
    }

    pub(super) fn usage_lines(&self, _seconds: f64) -> Vec<String> {
        Vec::new()
    }
}
