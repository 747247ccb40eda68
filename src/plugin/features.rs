//! The `features` resource: the rows of the batch that a collator is to make.

use serde_json::{Value as Json, json};
use wasmtime::component::Resource;

use super::bindings::trainer::host::data;
use super::fault::HostError;
use super::state::State;
use super::tensor;
use super::tensor::rules::Form;
use super::text::printable;
use crate::data::collator::columns::{self, Fill, Outline};
use crate::data::collator::{BadExample, Side};
use crate::data::{Example, Value};

/// Marks the `features` resource; there is one per call, and a borrow cannot outlive it.
#[derive(Debug)]
pub enum Handle {}

/// What the current call shows of its rows.
#[derive(Debug)]
pub(super) struct Features {
    rows: Vec<Example>,
    is_training: bool,
    /// The row that the host has last refused, and why.
    pub(super) refused: Option<BadExample>,
}

impl Features {
    /// Rows of a batch. A copy, because a store outlives a call; it is small beside what a collator does with it.
    pub(super) fn of(rows: &[Example], is_training: bool) -> Self {
        Self {
            rows: rows.to_vec(),
            is_training,
            refused: None,
        }
    }

    fn has(&self, column: &str) -> bool {
        let first = self.rows.first();
        first.is_some_and(|row| row.get(column).is_some())
    }

    fn need(&self, column: &str) -> Result<(), HostError> {
        if self.has(column) {
            return Ok(());
        }
        let names = self.names().join(", ");
        Err(HostError::data(format!(
            "there is no column `{}`; the rows have {}",
            printable(column, 64),
            printable(&names, 256)
        )))
    }

    fn names(&self) -> Vec<String> {
        let columns = self.rows.first().map(|row| &row.columns[..]);
        let columns = columns.unwrap_or_default().iter();
        columns.map(|(name, _)| name.to_string()).collect()
    }

    fn cell(&self, column: &str, row: u64) -> Result<&Value, HostError> {
        self.need(column)?;
        let example = usize::try_from(row).ok().and_then(|row| self.rows.get(row));
        let Some(example) = example else {
            let count = self.rows.len();
            return Err(HostError::data(format!("row {row} of {count}")));
        };
        Ok(example.get(column).unwrap_or(&Value::Null))
    }

    /// An error about a row is for the guest; the adapter says where the row came from.
    fn refuse(&mut self, error: anyhow::Error) -> HostError {
        let text = error.to_string();
        self.refused = error.downcast::<BadExample>().ok();
        HostError::data(text)
    }
}

fn form(outline: &Outline) -> Form {
    Form {
        dims: outline.shape.clone(),
        kind: match outline.is_whole {
            true => tch::Kind::Int64,
            false => tch::Kind::Float,
        },
    }
}

fn no_rows() -> HostError {
    HostError::stale("no rows belong to this call")
}

impl State {
    fn features(&mut self) -> Result<&mut Features, HostError> {
        self.features.as_mut().ok_or_else(no_rows)
    }

    /// A tensor from the rows, charged before it is made.
    fn column(
        &mut self,
        column: &str,
        outline: impl FnOnce(&[Example]) -> anyhow::Result<Outline>,
        make: impl FnOnce(&[Example]) -> anyhow::Result<tch::Tensor>,
    ) -> Result<Resource<tensor::Handle>, HostError> {
        let Self {
            features, tensors, ..
        } = self;
        let features = features.as_mut().ok_or_else(no_rows)?;
        features.need(column)?;
        let form = match outline(&features.rows) {
            Ok(outline) => form(&outline),
            Err(error) => return Err(features.refuse(error)),
        };
        // The numbers are laid out in a buffer first.
        let scratch = form.bytes()?;
        tensors.create(form, scratch, || {
            make(&features.rows).map_err(|error| features.refuse(error))
        })
    }
}

impl data::HostFeatures for State {
    fn len(&mut self, _: Resource<Handle>) -> wasmtime::Result<u64> {
        Ok(self
            .features
            .as_ref()
            .map_or(0, |rows| rows.rows.len() as u64))
    }

    fn columns(&mut self, _: Resource<Handle>) -> wasmtime::Result<Vec<String>> {
        Ok(self
            .features
            .as_ref()
            .map(Features::names)
            .unwrap_or_default())
    }

    fn has(&mut self, _: Resource<Handle>, column: String) -> wasmtime::Result<bool> {
        let features = self.features.as_ref();
        Ok(features.is_some_and(|features| features.has(&column)))
    }

    fn is_training(&mut self, _: Resource<Handle>) -> wasmtime::Result<bool> {
        let features = self.features.as_ref();
        Ok(features.is_some_and(|features| features.is_training))
    }

    fn stacked(
        &mut self,
        _: Resource<Handle>,
        column: String,
    ) -> Result<Resource<tensor::Handle>, HostError> {
        self.column(
            &column,
            |rows| Ok(columns::stacked_outline(rows, &column)),
            |rows| columns::stacked(rows, &column),
        )
    }

    fn lengths(&mut self, _: Resource<Handle>, column: String) -> Result<Vec<u64>, HostError> {
        let features = self.features()?;
        features.need(&column)?;
        let lengths = match columns::lengths(&features.rows, &column) {
            Ok(lengths) => lengths,
            Err(error) => return Err(features.refuse(error)),
        };
        self.tensors.hand_over(8 * lengths.len() as u64)?;
        Ok(lengths.into_iter().map(|length| length as u64).collect())
    }

    fn padded(
        &mut self,
        _: Resource<Handle>,
        column: String,
        value: f64,
        to_multiple_of: u32,
        left: bool,
    ) -> Result<Resource<tensor::Handle>, HostError> {
        let fill = Fill {
            value,
            to_multiple_of: to_multiple_of as usize,
            side: if left { Side::Left } else { Side::Right },
        };
        self.column(
            &column,
            |rows| columns::padded_outline(rows, &column, fill),
            |rows| columns::padded(rows, &column, fill),
        )
    }

    fn text(&mut self, _: Resource<Handle>, column: String, row: u64) -> Result<String, HostError> {
        match self.features()?.cell(&column, row)? {
            Value::Text(text) => {
                let text = text.clone();
                self.tensors.hand_over(text.len() as u64)?;
                Ok(text)
            }
            other => Err(not_as("text", &column, other)),
        }
    }

    fn bytes(
        &mut self,
        _: Resource<Handle>,
        column: String,
        row: u64,
    ) -> Result<Vec<u8>, HostError> {
        let bytes = match self.features()?.cell(&column, row)? {
            Value::Text(text) => text.clone().into_bytes(),
            Value::Int(number) => number.to_le_bytes().to_vec(),
            Value::Float(number) => number.to_le_bytes().to_vec(),
            Value::Ints(row) => row.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Value::Floats(row) => row.iter().flat_map(|number| number.to_le_bytes()).collect(),
            other @ (Value::Null | Value::Texts(_)) => return Err(not_as("bytes", &column, other)),
        };
        self.tensors.hand_over(bytes.len() as u64)?;
        Ok(bytes)
    }

    fn json(&mut self, _: Resource<Handle>, column: String, row: u64) -> Result<String, HostError> {
        let text = json_of(self.features()?.cell(&column, row)?).to_string();
        self.tensors.hand_over(text.len() as u64)?;
        Ok(text)
    }

    fn drop(&mut self, _: Resource<Handle>) -> wasmtime::Result<()> {
        Ok(())
    }
}

fn json_of(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Int(number) => json!(number),
        Value::Float(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Ints(row) => json!(row),
        Value::Floats(row) => json!(row),
        Value::Texts(row) => json!(row),
    }
}

fn not_as(wanted: &str, column: &str, value: &Value) -> HostError {
    let what = match value {
        Value::Null => "nothing",
        Value::Int(_) | Value::Float(_) => "a number",
        Value::Text(_) => "a string",
        Value::Ints(_) | Value::Floats(_) => "a list of numbers",
        Value::Texts(_) => "a list of strings",
    };
    HostError::data(format!(
        "column `{}` holds {what} there, which is not to be had as {wanted}",
        printable(column, 64)
    ))
}
