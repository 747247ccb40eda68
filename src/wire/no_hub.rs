//! A build without the Hub: arguments that need it were refused when the run was resolved.

use std::sync::atomic::AtomicBool;

use anyhow::{Result, ensure};

use super::card::Origin;
use crate::callback::Callbacks;
use crate::config::run::Run;
use crate::error::Failure;

pub(crate) fn fetch(run: &Run) -> Result<(Run, Origin)> {
    let message = "this build of host has no Hub client (it was made without the feature `hub`)";
    ensure!(run.hub.is_none(), Failure::usage(message));
    Ok((run.clone(), Origin::default()))
}

/// No uploads.
#[derive(Debug)]
pub(crate) struct Pushing;

impl Pushing {
    pub(crate) fn begin(_run: &Run, _callbacks: &mut Callbacks) -> Result<Self> {
        Ok(Self)
    }

    pub(crate) fn model_saved(&self) {}

    pub(crate) fn wait(&self, _interrupted: &AtomicBool) {}

    pub(crate) fn finish(&self, _interrupted: &AtomicBool) -> Result<()> {
        Ok(())
    }

    pub(crate) fn summary(&self) {}
}
