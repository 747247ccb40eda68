//! A data set without the columns that neither the model's `forward` nor its labels name (spec 2, item 4).

use std::sync::Arc;

use anyhow::Result;

use crate::data::{Dataset, Example};

/// Collators rename these to `labels`, so they stay.
const KEPT: &[&str] = &["label", "label_ids"];

/// The rows of a data set with some of its columns.
pub struct Selected {
    rows: Arc<dyn Dataset>,
    names: Vec<String>,
}

impl std::fmt::Debug for Selected {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Selected")
            .field("rows", &self.rows.len())
            .field("names", &self.names)
            .finish()
    }
}

impl Selected {
    /// Keeps the columns in `names`, and those that collators turn into labels.
    pub fn new(rows: Arc<dyn Dataset>, names: Vec<String>) -> Self {
        Self { rows, names }
    }

    fn is_kept(&self, name: &str) -> bool {
        KEPT.contains(&name) || self.names.iter().any(|kept| kept == name)
    }
}

impl Dataset for Selected {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn get(&self, index: usize) -> Result<Example> {
        let mut example = self.rows.get(index)?;
        example.columns.retain(|(name, _)| self.is_kept(name));
        Ok(example)
    }

    fn columns(&self) -> Vec<Arc<str>> {
        let mut columns = self.rows.columns();
        columns.retain(|name| self.is_kept(name));
        columns
    }

    fn locate(&self, index: usize) -> String {
        self.rows.locate(index)
    }

    /// Of any column: lengths may be given in one that the model does not take.
    fn row_lengths(&self, column: &str) -> Result<Vec<usize>> {
        self.rows.row_lengths(column)
    }
}
