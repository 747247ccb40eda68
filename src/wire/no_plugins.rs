//! A build without WebAssembly: plugins are refused, built-ins do their work.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};

use crate::callback::Callback;
use crate::config::run::Run;
use crate::data::{Collator, Tokenizer};
use crate::error::Failure;
use crate::loss::Loss;
use crate::metric::{LogitsProcessor, Metric};
use crate::report::Reporter;

/// As with plugins.
pub(crate) type MakeCollator = Box<dyn Fn(bool) -> Box<dyn Collator>>;

/// No plugins.
#[derive(Debug)]
pub(crate) struct Plugins;

impl Plugins {
    pub(crate) fn load(run: &Run, _compiler: Option<PathBuf>) -> Result<Self> {
        let message =
            "this build of host has no plugins (it was made without the feature `plugin`)";
        ensure!(run.plugins.is_empty(), Failure::usage(message));
        Ok(Self)
    }

    pub(crate) fn metrics(&self) -> Vec<Box<dyn Metric>> {
        Vec::new()
    }

    pub(crate) fn logits(&self) -> Vec<Box<dyn LogitsProcessor>> {
        Vec::new()
    }

    pub(crate) fn callbacks(&self) -> Vec<Box<dyn Callback>> {
        Vec::new()
    }

    pub(crate) fn collators(&self) -> Option<MakeCollator> {
        None
    }

    pub(crate) fn loss(&self, _label_names: Vec<String>) -> Option<Box<dyn Loss>> {
        None
    }

    pub(crate) fn set_tokenizer(&self, _tokenizer: &Arc<Tokenizer>) {}

    pub(crate) fn reporters(&self, _run: &Run, _resumes: bool) -> Result<Vec<Box<dyn Reporter>>> {
        Ok(Vec::new())
    }

    pub(crate) fn close(&self) -> Result<()> {
        Ok(())
    }

    pub(crate) fn usage_lines(&self, _seconds: f64) -> Vec<String> {
        Vec::new()
    }
}
