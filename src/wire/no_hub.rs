//! A build without the Hub: arguments that need it were refused when the run was resolved.

use std::sync::atomic::AtomicBool;

use anyhow::{Result, ensure};

use crate::callback::Callback;
use crate::config::run::Run;
use crate::error::Failure;

/// Nothing comes from there.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    pub license: Option<String>,
    pub datasets: Vec<String>,
}

pub(super) fn fetch(run: &Run) -> Result<(Run, Origin)> {
    let message = "this build of host has no Hub client (it was made without the feature `hub`)";
    ensure!(run.hub.is_none(), Failure::usage(message));
    Ok((run.clone(), Origin::default()))
}

/// No uploads.
#[derive(Debug)]
pub(super) struct Pushing;

impl Pushing {
    pub(super) fn begin(_run: &Run) -> Result<Self> {
        Ok(Self)
    }

    pub(super) fn callback(&self) -> Option<Box<dyn Callback>> {
        None
    }

    pub(super) fn model_saved(&self) {}

    pub(super) fn finish(&self, _interrupted: &AtomicBool) -> Result<()> {
        Ok(())
    }

    pub(super) fn summary(&self) {}
}
