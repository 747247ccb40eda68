//! What a collator is given: the rows of a batch.

use crate::error::Result;
use crate::hooks::host::data;
use crate::tensor::Tensor;

/// Rows that become a batch.
#[derive(Debug)]
pub struct Features<'a>(&'a data::Features);

/// How lists get one length.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Padding {
    /// What is filled in.
    pub value: f64,
    /// The length is a multiple of this; 0 and 1 are none.
    pub to_multiple_of: u32,
    /// Before the elements instead of after them.
    pub left: bool,
}

impl<'a> Features<'a> {
    /// For the exporting macros.
    #[doc(hidden)]
    pub fn new(features: &'a data::Features) -> Self {
        Self(features)
    }

    /// Number of rows.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the columns in the order of the rows' file.
    pub fn columns(&self) -> Vec<String> {
        self.0.columns()
    }

    /// Whether there is a column.
    pub fn has(&self, column: &str) -> bool {
        self.0.has(column)
    }

    /// Whether the batch is trained with; else it is one of an evaluation or prediction.
    pub fn is_training(&self) -> bool {
        self.0.is_training()
    }

    /// A column of numbers, or of lists of equal length: signed64 if all are whole, else float32.
    pub fn stacked(&self, column: &str) -> Result<Tensor> {
        Ok(self.0.stacked(column)?.into())
    }

    /// Elements of the list in each row.
    pub fn lengths(&self, column: &str) -> Result<Vec<u64>> {
        Ok(self.0.lengths(column)?)
    }

    /// A column of lists, filled up to one length.
    pub fn padded(&self, column: &str, padding: Padding) -> Result<Tensor> {
        let Padding {
            value,
            to_multiple_of,
            left,
        } = padding;
        Ok(self.0.padded(column, value, to_multiple_of, left)?.into())
    }

    /// A string.
    pub fn text(&self, column: &str, row: u64) -> Result<String> {
        Ok(self.0.text(column, row)?)
    }

    /// A string in UTF-8, or numbers in little endian: 64-bit integers if they are whole, else 64-bit floats.
    pub fn bytes(&self, column: &str, row: u64) -> Result<Vec<u8>> {
        Ok(self.0.bytes(column, row)?)
    }

    /// Any value as JSON.
    pub fn json(&self, column: &str, row: u64) -> Result<String> {
        Ok(self.0.json(column, row)?)
    }
}
