//! Built-in collators: examples into batches (spec 2, collators). Each column becomes one flat buffer, then one tensor.

use std::fmt;
use std::sync::Arc;

use anyhow::Result;
use tch::Tensor;

use super::{Example, Value};

pub mod columns;
mod default;
mod language_model;
mod packing;
mod padding;
mod permutation;
mod seq2seq;
mod token_classification;

pub use default::DefaultCollator;
pub use language_model::{LanguageModelCollator, Objective, Vocabulary};
pub use packing::PackingCollator;
pub use padding::{PadTo, PaddingCollator, PaddingSettings, Side};
pub use permutation::{PermutationCollator, PermutationSettings};
pub use seq2seq::Seq2SeqCollator;
pub use token_classification::{IGNORED_LABEL, TokenClassificationCollator};

/// The tokens.
const INPUT_IDS: &str = "input_ids";
/// What a batch calls the labels, whatever the column is called.
pub const LABELS: &str = "labels";
/// Columns that become `labels`.
pub const LABEL_COLUMNS: &[&str] = &["label", "label_ids"];

/// An example that does not fit into its batch. The loader adds where the example came from.
#[derive(Debug)]
pub struct BadExample {
    /// Which of the examples.
    pub position: usize,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for BadExample {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "example {} of the batch: {}",
            self.position, self.message
        )
    }
}

impl std::error::Error for BadExample {}

fn bad<T>(position: usize, message: impl Into<String>) -> Result<T> {
    Err(BadExample {
        position,
        message: message.into(),
    }
    .into())
}

/// The values of a column, one for each example; `index` is where the first example has it.
fn values<'a>(
    examples: &'a [Example],
    index: usize,
    name: &'a str,
) -> impl Iterator<Item = &'a Value> {
    examples
        .iter()
        .map(move |example| match example.columns.get(index) {
            Some((column, value)) if &**column == name => value,
            _ => example.get(name).unwrap_or(&Value::Null),
        })
}

/// Whether a column of this value becomes a tensor.
fn is_numeric(value: &Value) -> bool {
    match value {
        Value::Null | Value::Text(_) | Value::Texts(_) => false,
        Value::Int(_) | Value::Float(_) | Value::Ints(_) | Value::Floats(_) => true,
    }
}

/// A column's numbers in one buffer: whole numbers as long as there is no other.
enum Numbers {
    Ints(Vec<i64>),
    Floats(Vec<f32>),
}

impl Numbers {
    fn with_capacity(count: usize) -> Self {
        Numbers::Ints(Vec::with_capacity(count))
    }

    fn extend_ints(&mut self, values: &[i64]) {
        match self {
            Numbers::Ints(numbers) => numbers.extend_from_slice(values),
            Numbers::Floats(numbers) => numbers.extend(values.iter().map(|number| *number as f32)),
        }
    }

    fn extend_floats(&mut self, values: &[f64]) {
        if let Numbers::Ints(numbers) = self {
            let mut floats = Vec::with_capacity(numbers.capacity());
            floats.extend(numbers.iter().map(|number| *number as f32));
            *self = Numbers::Floats(floats);
        }
        if let Numbers::Floats(numbers) = self {
            numbers.extend(values.iter().map(|number| *number as f32));
        }
    }

    fn extend_with(&mut self, count: usize, value: i64) {
        match self {
            Numbers::Ints(numbers) => numbers.extend(std::iter::repeat_n(value, count)),
            Numbers::Floats(numbers) => numbers.extend(std::iter::repeat_n(value as f32, count)),
        }
    }

    fn fill(&mut self, count: usize, value: f64) {
        if value.fract() == 0.0 {
            self.extend_with(count, value as i64);
        } else {
            self.extend_floats(&vec![value; count]);
        }
    }

    fn into_tensor(self, shape: &[i64]) -> Result<Tensor> {
        let flat = match self {
            Numbers::Ints(numbers) => Tensor::f_from_slice(&numbers)?,
            Numbers::Floats(numbers) => Tensor::f_from_slice(&numbers)?,
        };
        Ok(if shape.len() == 1 {
            flat
        } else {
            flat.f_view(shape)?
        })
    }
}

/// Scalars to a vector, equal rows to a matrix: int64 for whole numbers, else float32.
fn stack<'a>(name: &str, count: usize, column: impl Iterator<Item = &'a Value>) -> Result<Tensor> {
    let mut numbers = Numbers::with_capacity(count);
    let mut expected: Option<(usize, Option<usize>)> = None;
    for (position, value) in column.enumerate() {
        let width = match value {
            Value::Int(number) => {
                numbers.extend_ints(&[*number]);
                None
            }
            Value::Float(number) => {
                numbers.extend_floats(&[*number]);
                None
            }
            Value::Ints(row) => {
                numbers.extend_ints(row);
                Some(row.len())
            }
            Value::Floats(row) => {
                numbers.extend_floats(row);
                Some(row.len())
            }
            Value::Null => {
                return bad(
                    position,
                    format!("field {name:?} is null, but not in all rows of the batch"),
                );
            }
            Value::Text(_) | Value::Texts(_) => {
                return bad(
                    position,
                    format!("field {name:?} holds strings, not numbers"),
                );
            }
        };
        let (_, first) = *expected.get_or_insert((position, width));
        if first != width {
            return bad(position, unequal(name, width, first));
        }
    }
    match expected {
        Some((_, Some(width))) => numbers.into_tensor(&[count as i64, width as i64]),
        _ => numbers.into_tensor(&[count as i64]),
    }
}

fn unequal(name: &str, found: Option<usize>, expected: Option<usize>) -> String {
    let describe = |width: Option<usize>| {
        width.map_or("a number".to_owned(), |width| format!("a list of {width}"))
    };
    format!(
        "field {name:?} is {}; expected {} (as in the batch's first row)",
        describe(found),
        describe(expected)
    )
}

/// The name of a column in the batch.
fn batch_name(name: &Arc<str>) -> Arc<str> {
    if LABEL_COLUMNS.contains(&&**name) {
        LABELS.into()
    } else {
        name.clone()
    }
}

#[cfg(test)]
mod tests {
    use tch::{Kind, Tensor};

    use crate::data::{Batch, Collator, Example, Value};
    use crate::torch::Generator;

    pub(super) fn example(columns: Vec<(&str, Value)>) -> Example {
        Example {
            columns: columns
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .collect(),
        }
    }

    /// Name, kind, shape and numbers of each column.
    pub(super) fn contents(batch: &Batch) -> Vec<(String, Kind, Vec<i64>, Vec<f64>)> {
        let numbers = |tensor: &Tensor| {
            Vec::<f64>::try_from(tensor.to_kind(Kind::Double).reshape(-1)).expect("numbers")
        };
        let describe = |(name, tensor): &(std::sync::Arc<str>, Tensor)| {
            (
                name.to_string(),
                tensor.kind(),
                tensor.size(),
                numbers(tensor),
            )
        };
        batch.columns.iter().map(describe).collect()
    }

    pub(super) fn collate(collator: &dyn Collator, examples: &[Example]) -> Batch {
        let mut draws = Generator::seeded(0).expect("a generator");
        collator.collate(examples, &mut draws).expect("a batch")
    }

    pub(super) fn refusal(collator: &dyn Collator, examples: &[Example]) -> String {
        let mut draws = Generator::seeded(0).expect("a generator");
        collator
            .collate(examples, &mut draws)
            .expect_err("a bad batch")
            .to_string()
    }
}
