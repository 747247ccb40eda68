//! Wiring: from a resolved run to boxes, and what each command does with them. It knows everything below; only the two
//! entries, for the engine and for Rust programs, know it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};

use crate::cli::output;
use crate::config::run::{Command, Run};
use crate::torch;

pub(crate) mod card;
mod collators;
pub mod entry;
mod evaluate;
#[cfg(feature = "hub")]
pub(crate) mod hub;
#[cfg(not(feature = "hub"))]
#[path = "no_hub.rs"]
pub(crate) mod hub;
pub(crate) mod inputs;
pub(crate) mod parts;
#[cfg(feature = "plugin")]
pub(crate) mod plugins;
#[cfg(not(feature = "plugin"))]
#[path = "no_plugins.rs"]
pub(crate) mod plugins;
mod predictions;
mod preparation;
mod progress;
mod signals;
pub(crate) mod train;

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
    set_modes(run)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    // The reference's scripts seed before the model is made, its constructor once more.
    let (run, origin) = &hub::fetch(run)?;
    torch::manual_seed(run.train.seed)?;
    match run.command {
        Command::Train => train::run((run, origin), interrupted),
        Command::Evaluate => evaluate::evaluate(run, interrupted).map(|()| Ending::Done),
        Command::Predict => evaluate::predict(run, interrupted).map(|()| Ending::Done),
    }
}

/// Delivers what the reporters of a run have left in its output folder.
#[cfg(feature = "plugin")]
fn flush_reports(run: &Run) -> Result<()> {
    let _lock = crate::checkpoint::lock::OutputLock::acquire(&run.output_dir)?;
    let waiting = plugins::waiting(run);
    if waiting.is_empty() {
        let folder = run.output_dir.display();
        output::status(&format!("no records wait in {folder}"));
    }
    for line in plugins::flush(run, &waiting, Some(this_executable()?))? {
        output::status(&line);
    }
    Ok(())
}

/// What libtorch keeps for the whole process: threads, TF32, determinism.
pub(crate) fn set_modes(run: &Run) -> Result<()> {
    torch::set_num_threads(run.num_threads)?;
    if let Some(allowed) = run.precision.tf32 {
        torch::allow_tf32(allowed)?;
    }
    if run.train.full_determinism {
        torch::set_deterministic()?;
    }
    Ok(())
}

/// This executable, which compiles components when it is started with the argument for it.
fn this_executable() -> Result<PathBuf> {
    std::fs::read_link("/proc/self/exe").context("the path of this program cannot be read")
}

/// The tables of a run on stdout. That they cannot be shown is told at the end: it must not keep files from being written.
#[derive(Debug, Default)]
struct Screen {
    failure: Option<anyhow::Error>,
}

impl Screen {
    /// Shows the table of a split.
    fn show(&mut self, split: &str, metrics: &[(String, f64)]) {
        let shown = output::print(&crate::trainer::results::table(split, metrics));
        if let Err(error) = shown {
            self.failure.get_or_insert(error);
        }
    }

    /// The first failure.
    fn finish(self) -> Result<()> {
        self.failure.map_or(Ok(()), Err)
    }
}

/// Says what each plugin cost, on stderr; `seconds` is what its share is taken of.
fn show_usage(plugins: &plugins::Plugins, seconds: f64) {
    for line in plugins.usage_lines(seconds) {
        output::status(&line);
    }
}
