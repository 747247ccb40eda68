//! A record of every micro-batch and update in full precision: which rows, which loss, which norm and rate. For comparing
//! runs and for accounting of samples.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

/// Writes one JSON object a line: `{"step", "rows", "loss"}` for a micro-batch, `{"step", "gradient_norm",
/// "learning_rates"}` for an update.
#[derive(Debug)]
pub struct StepRecord {
    path: PathBuf,
    writer: BufWriter<File>,
}

impl StepRecord {
    /// Begins a file; an existing one is replaced.
    pub fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            writer: BufWriter::new(file),
        })
    }

    /// A micro-batch of the step that follows `step`.
    pub fn batch(&mut self, step: u64, rows: &[usize], loss: f64) -> Result<()> {
        self.line(&json!({ "step": step, "rows": rows, "loss": loss }))
    }

    /// An update: the norm before clipping, if it was computed, and the rates it used.
    pub fn update(
        &mut self,
        step: u64,
        gradient_norm: Option<f64>,
        learning_rates: &[f64],
    ) -> Result<()> {
        self.line(&json!({ "step": step, "gradient_norm": gradient_norm, "learning_rates": learning_rates }))
    }

    fn line(&mut self, value: &serde_json::Value) -> Result<()> {
        let context = || format!("cannot write {}", self.path.display());
        serde_json::to_writer(&mut self.writer, value).with_context(context)?;
        self.writer.write_all(b"\n").with_context(context)?;
        self.writer.flush().with_context(context)
    }
}
