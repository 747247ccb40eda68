//! Wiring: from a resolved run to boxes, and what each command does with them. The engine's half of level 5: like `cli`,
//! it knows everything, and nothing knows it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;

use crate::cli::output;
use crate::config::run::{Command, Run};
use crate::torch;

mod collators;
pub mod entry;
mod evaluate;
mod inputs;
mod parts;
#[cfg(feature = "plugin")]
mod plugins;
#[cfg(not(feature = "plugin"))]
#[path = "no_plugins.rs"]
mod plugins;
mod predictions;
mod preparation;
mod progress;
mod signals;
mod train;

/// How a run came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All is done.
    Done,
    /// A signal stopped it; this checkpoint was committed.
    Stopped(PathBuf),
}

/// Executes a run.
pub fn run(run: &Run) -> Result<Ending> {
    torch::set_num_threads(run.num_threads)?;
    let interrupted: Arc<AtomicBool> = signals::interruption()?;
    // The reference's scripts seed before the model is made, its constructor once more.
    torch::manual_seed(run.train.seed)?;
    match run.command {
        Command::Train => train::run(run, interrupted),
        Command::Evaluate => evaluate::evaluate(run, interrupted).map(|()| Ending::Done),
        Command::Predict => evaluate::predict(run, interrupted).map(|()| Ending::Done),
    }
}

/// Shows the table of a split on stdout.
fn show(split: &str, metrics: &[(String, f64)]) -> Result<()> {
    output::print(&crate::trainer::results::table(split, metrics))
}

/// Says what each plugin cost, on stderr; `seconds` is what its share is taken of.
fn show_usage(plugins: &plugins::Plugins, seconds: f64) {
    for line in plugins.usage_lines(seconds) {
        output::status(&line);
    }
}
