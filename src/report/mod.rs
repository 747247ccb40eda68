//! Reporters: where the records of a run go besides the log history.
//!
//! Built-ins are called on the training thread and are cheap. What may be slow, as everything that speaks to a server, is a
//! [`Destination`] behind a [`Delivery`]: a thread, a queue, a spool on the disk.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value};

mod curves;
mod delivery;
pub mod model_card;
mod spool;
mod step_record;

pub use curves::Curves;
pub use delivery::{Delivery, Destination, Settings, Undelivered, flush};
pub use spool::{Entry, Record};
pub use step_record::StepRecord;

/// What a run is, told to reporters before its first step.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The training arguments by their Hugging Face names, secrets masked.
    pub arguments: &'a Value,
    /// `config.json` of the model, if it has one.
    pub model_config: Option<&'a Value>,
    /// The log history of the run that is resumed.
    pub history: &'a [Map<String, Value>],
}

/// A destination for a run's records. Called from the training thread, so it must be quick.
pub trait Reporter {
    /// Name for messages and the summary.
    fn name(&self) -> &str;
    /// Once before training.
    fn start(&mut self, start: &Start<'_>) -> Result<()>;
    /// One entry of the log history.
    fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<()>;
    /// The end: status `completed`, `stopped` or `failed`. `output_dir` is where files may be written. Programs that train
    /// twice come here twice.
    fn finish(&mut self, status: &str, output_dir: &Path) -> Result<()>;
    /// One line for the summary at the end of a run.
    fn summary(&self) -> Option<String> {
        None
    }
}
