//! Reporters: where the records of a run go besides the log history.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value};

mod curves;
pub mod model_card;
mod step_record;

pub use curves::Curves;
pub use step_record::StepRecord;

/// A destination for a run's records. Called from the training thread; built-ins are cheap, plugins queue.
pub trait Reporter {
    /// Name for messages and the summary.
    fn name(&self) -> &str;
    /// Once before training: the arguments as JSON, and the log history of the run that is resumed.
    fn start(&mut self, arguments: &Value, history: &[Map<String, Value>]) -> Result<()>;
    /// One entry of the log history.
    fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<()>;
    /// The end: status `completed`, `stopped` or `failed`. `output_dir` is where files may be written.
    fn finish(&mut self, status: &str, output_dir: &Path) -> Result<()>;
}
