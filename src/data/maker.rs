//! Rows into batches: what the loop does without workers, and each worker for itself.

use std::sync::Arc;

use anyhow::{Context, Error, Result};
use tch::Device;

use super::collator::BadExample;
use super::loader::LoadedBatch;
use super::stream::Convert;
use super::{Batch, Collator, Dataset, Place, Table};
use crate::error::Failure;
use crate::torch::Generator;

/// What a batch is made of.
pub(super) struct Job {
    /// Where it stands.
    pub place: Place,
    /// Their numbers.
    pub rows: Vec<usize>,
    /// The rows themselves, as read.
    pub raw: Option<Table>,
}

/// Where the rows of a batch are.
pub(super) enum Source {
    /// In memory.
    Mapped(Arc<dyn Dataset>),
    /// In the job, as read.
    Streamed(Box<dyn Convert>),
}

/// Rows into batches; what all workers share.
pub(super) struct Maker {
    pub source: Source,
    pub collator: Box<dyn Collator>,
    /// The GPU whose batches are made in page-locked memory.
    pub pin_for: Option<Device>,
}

impl Maker {
    /// Whether batches need random numbers.
    pub fn is_random(&self) -> bool {
        self.collator.is_random()
    }

    /// Makes a batch, with the numbers of `draws` if it needs any.
    pub fn make(&self, job: Job, draws: &mut Generator) -> Result<LoadedBatch> {
        let Job { place, rows, raw } = job;
        let batch = match (&self.source, raw) {
            (Source::Mapped(dataset), _) => self.collate(&**dataset, (place, &rows), draws)?,
            (Source::Streamed(convert), Some(raw)) => {
                let table = convert.convert(raw)?;
                let positions: Vec<usize> = (0..rows.len()).collect();
                self.collate(&table, (place, &positions), draws)?
            }
            (Source::Streamed(_), None) => anyhow::bail!("a streamed batch without rows"),
        };
        let batch = match self.pin_for {
            Some(device) => batch.pinned(device)?,
            None => batch,
        };
        Ok(LoadedBatch {
            batch,
            rows,
            draws: None,
        })
    }

    fn collate(
        &self,
        dataset: &dyn Dataset,
        (place, rows): (Place, &[usize]),
        draws: &mut Generator,
    ) -> Result<Batch> {
        let read = |row: &usize| {
            let context = || format!("reading {}", dataset.locate(*row));
            dataset.get(*row).with_context(context)
        };
        let examples = rows.iter().map(read).collect::<Result<Vec<_>>>()?;
        let batch = self.collator.collate_at(place, &examples, draws);
        batch.map_err(|error| explain(error, dataset, rows))
    }
}

/// Says which row a collator has refused.
fn explain(error: Error, dataset: &dyn Dataset, rows: &[usize]) -> Error {
    match error.downcast::<BadExample>() {
        Ok(bad) => {
            let place = rows
                .get(bad.position)
                .map_or_else(|| "a row".to_owned(), |row| dataset.locate(*row));
            Failure::data(format!("{place}: {}", bad.message)).into()
        }
        Err(error) => {
            let first = rows
                .first()
                .map_or_else(|| "no row".to_owned(), |row| dataset.locate(*row));
            error.context(format!(
                "making a batch of {} rows that begins with {first}",
                rows.len()
            ))
        }
    }
}
