//! Data: files into examples, examples into batches, batches in the reference's order.
//!
//! ```text
//! files (format/) -> Table -> prepare (tokenizer, labels) -> Dataset -> Sampler (order) -> Collator -> Batch
//!                                                            Loader: position, one batch ahead, resumption
//! ```
//! This module owns what an example and a batch are and the three traits; it knows no model and no loss.

use std::sync::Arc;

use anyhow::{Context, Result};
use tch::{Device, Tensor};

use crate::torch::Generator;

pub mod collator;
pub mod column;
pub mod concat;
pub mod format;
pub mod labels;
pub mod loader;
mod maker;
pub mod prepare;
pub mod sampler;
pub mod stream;
pub mod table;
#[cfg(test)]
mod testing;
pub mod tokenizer;
mod workers;

pub use concat::Accumulator;
pub use loader::{Epoch, EpochStart, LoadedBatch, Loader};
pub use prepare::{PrepareOptions, Prepared, Task, TokenLimits, prepare};
pub use table::Table;
pub use tokenizer::Tokenizer;

/// One cell of an example.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Absent; a collator leaves the key out (spec 2, collators).
    Null,
    /// A whole number.
    Int(i64),
    /// A real number.
    Float(f64),
    /// A string; never reaches a tensor.
    Text(String),
    /// A row of whole numbers (`input_ids`, multi-label indicators, tags).
    Ints(Vec<i64>),
    /// A row of real numbers.
    Floats(Vec<f64>),
    /// A row of strings (words).
    Texts(Vec<String>),
}

/// One row: columns in file order.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Example {
    /// Column name and value.
    pub columns: Vec<(Arc<str>, Value)>,
}

impl Example {
    /// The value of a column.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.columns
            .iter()
            .find(|(column, _)| &**column == name)
            .map(|(_, value)| value)
    }
}

/// Rows by index. Map-style; shared by loader threads, so it holds no tensors.
pub trait Dataset: Send + Sync {
    /// Number of rows.
    fn len(&self) -> usize;
    /// True if there is no row.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Row `index`, `index < len()`.
    fn get(&self, index: usize) -> Result<Example>;
    /// Names of the columns in order.
    fn columns(&self) -> Vec<Arc<str>>;
    /// Where row `index` came from, as a message names it: `train.jsonl:17`.
    fn locate(&self, index: usize) -> String {
        format!("row {index}")
    }
    /// Number of elements of each row of a column that holds lists.
    fn row_lengths(&self, column: &str) -> Result<Vec<usize>> {
        let length = |index| {
            let example = self.get(index)?;
            let length = example.get(column).and_then(table::value_length);
            length.with_context(|| {
                format!(
                    "{}: field {column:?} is no list, so it has no length",
                    self.locate(index)
                )
            })
        };
        (0..self.len()).map(length).collect()
    }
}

/// The order in which an epoch visits the rows.
pub trait Sampler: Send {
    /// The order of the next epoch. Draws from the generators exactly as spec 3.5 says; `base_seed` has been drawn by
    /// the loader before.
    fn order(&mut self, len: usize) -> Result<Vec<usize>>;
    /// State that lives across epochs, for exact resumption; `None` if there is none.
    fn state(&self) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
    /// Continues from a state that [`Sampler::state`] returned.
    fn load_state(&mut self, state: &[u8]) -> Result<()> {
        let _ = state;
        anyhow::bail!("this sampler keeps no state")
    }
}

/// Where a batch stands in a run: whatever follows from it alone is the same with any number of workers, and after
/// resumption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The base seed of its epoch, or of its pass over an evaluation set.
    pub epoch: i64,
    /// Its number there.
    pub batch: usize,
    /// The worker that makes it; 0 if there are none.
    pub worker: usize,
}

/// Turns examples into a batch. One instance serves all workers.
pub trait Collator: Send + Sync {
    /// Columns become tensors with the batch as first dimension. What is random is drawn from `draws`: the default
    /// generator, or that of the worker.
    fn collate(&self, examples: &[Example], draws: &mut Generator) -> Result<Batch>;
    /// The same for collators that draw from what follows from the batch's place.
    fn collate_at(
        &self,
        place: Place,
        examples: &[Example],
        draws: &mut Generator,
    ) -> Result<Batch> {
        let _ = place;
        self.collate(examples, draws)
    }
    /// Whether it draws: then a run that goes on needs the generator as it was before the next batch.
    fn is_random(&self) -> bool {
        false
    }
}

/// Named tensors with the batch as first dimension, in column order.
#[derive(Debug, Default)]
pub struct Batch {
    /// Column name and tensor.
    pub columns: Vec<(Arc<str>, Tensor)>,
}

impl Batch {
    /// The tensor of a column.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.columns
            .iter()
            .find(|(column, _)| &**column == name)
            .map(|(_, tensor)| tensor)
    }

    /// Takes a column out.
    pub fn take(&mut self, name: &str) -> Option<Tensor> {
        let index = self
            .columns
            .iter()
            .position(|(column, _)| &**column == name)?;
        Some(self.columns.remove(index).1)
    }

    /// Number of examples: the first dimension of the first column.
    pub fn len(&self) -> usize {
        self.columns
            .first()
            .and_then(|(_, tensor)| tensor.size().first().copied())
            .unwrap_or(0) as usize
    }

    /// True without columns or rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same batch on `device`; tensors already there are shared, not copied. From page-locked memory the copy runs
    /// beside what the CPU does next.
    pub fn to_device(&self, device: Device) -> Result<Batch> {
        self.each(|tensor| {
            let kind = tensor.f_kind()?;
            Ok(tensor.f_to_device_(device, kind, true, false)?)
        })
    }

    /// The same batch in page-locked memory, for copies to `device`.
    pub fn pinned(&self, device: Device) -> Result<Batch> {
        self.each(|tensor| Ok(tensor.f_pin_memory(device)?))
    }

    fn each(&self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Batch> {
        let columns = self.columns.iter();
        let columns = columns.map(|(name, tensor)| Ok((name.clone(), change(tensor)?)));
        Ok(Batch {
            columns: columns.collect::<Result<_>>()?,
        })
    }
}
