//! Sequence packing: several sequences in one row instead of padding, and none of them sees another. The attention mask
//! is block-diagonal and positions begin anew with each sequence, so that what the model computes for a token is what it
//! would compute in a row of its own.

use anyhow::{Context, Result, ensure};
use tch::Tensor;

use super::token_classification::IGNORED_LABEL;
use super::{INPUT_IDS, LABELS, PaddingSettings, bad, batch_name};
use crate::data::{Batch, Collator, Example, Value};
use crate::torch::Generator;

const TOKEN_TYPES: &str = "token_type_ids";

/// Puts the sequences of a batch into as few rows as they fit in one after the other. Labels must be one for each token.
#[derive(Clone, Copy, Debug)]
pub struct PackingCollator {
    settings: PaddingSettings,
    length: usize,
}

/// Where a sequence lies.
struct Place {
    row: usize,
    start: usize,
    length: usize,
}

impl PackingCollator {
    /// Rows of at most `length` tokens; what is left of them is padded by `settings`.
    pub fn new(settings: PaddingSettings, length: usize) -> Self {
        Self { settings, length }
    }

    /// First row with room, in the order of the examples; a longer sequence has a row of its own.
    fn places(&self, lengths: &[usize]) -> (Vec<Place>, Vec<usize>) {
        let mut filled: Vec<usize> = Vec::new();
        let mut place = |length: usize| {
            let fits = |start: &usize| start + length <= self.length;
            let row = filled.iter().position(fits).unwrap_or(filled.len());
            if row == filled.len() {
                filled.push(0);
            }
            let start = filled[row];
            filled[row] += length;
            Place { row, start, length }
        };
        let places = lengths.iter().map(|length| place(*length)).collect();
        (places, filled)
    }
}

/// The row of a column, as long as the tokens.
fn row_of<'a>(example: &'a Example, name: &str, position: usize) -> Result<&'a [i64]> {
    match example.get(name) {
        Some(Value::Ints(row)) => Ok(row),
        _ => bad(
            position,
            format!(
                "field {name:?} is no list of integers; packed rows need one value for each token"
            ),
        ),
    }
}

impl Collator for PackingCollator {
    fn collate(&self, examples: &[Example], _draws: &mut Generator) -> Result<Batch> {
        ensure!(!examples.is_empty(), "a batch needs at least one example");
        let tokens = |(position, example)| Ok(row_of(example, INPUT_IDS, position)?.len());
        let lengths = examples
            .iter()
            .enumerate()
            .map(tokens)
            .collect::<Result<Vec<_>>>()?;
        let (places, filled) = self.places(&lengths);
        let longest = filled.iter().copied().max().unwrap_or(0);
        let multiple = self.settings.pad_to_multiple_of.unwrap_or(1).max(1);
        let sheet = Sheet {
            places: &places,
            rows: filled.len(),
            width: longest.next_multiple_of(multiple),
        };
        let is_padded = filled.iter().any(|filled| *filled < sheet.width);
        let pad = match self.settings.pad_token_id {
            Some(pad) => pad,
            None if !is_padded => 0,
            None => {
                return bad(
                    0,
                    "a shorter row cannot be padded: the tokenizer has no padding token",
                );
            }
        };
        let mut columns = vec![(INPUT_IDS.into(), sheet.lay(examples, INPUT_IDS, pad)?)];
        for (name, value) in &examples[0].columns {
            let (known, filler) = match &*batch_name(name) {
                LABELS => (LABELS, IGNORED_LABEL),
                TOKEN_TYPES => (TOKEN_TYPES, self.settings.pad_token_type_id),
                _ => continue,
            };
            if !matches!(value, Value::Null | Value::Text(_) | Value::Texts(_)) {
                columns.push((known.into(), sheet.lay(examples, name, filler)?));
            }
        }
        columns.push(("position_ids".into(), sheet.positions()?));
        columns.push(("attention_mask".into(), sheet.blocks()?));
        Ok(Batch { columns })
    }
}

/// The rows of a packed batch.
struct Sheet<'a> {
    places: &'a [Place],
    rows: usize,
    width: usize,
}

impl Sheet<'_> {
    fn tensor(&self, numbers: &[i64]) -> Result<Tensor> {
        let shape = [i64::try_from(self.rows)?, i64::try_from(self.width)?];
        Ok(Tensor::f_from_slice(numbers)?.f_reshape(shape)?)
    }

    fn lay(&self, examples: &[Example], name: &str, filler: i64) -> Result<Tensor> {
        let mut numbers = vec![filler; self.rows * self.width];
        for (position, (example, place)) in examples.iter().zip(self.places).enumerate() {
            let row = row_of(example, name, position)?;
            if row.len() != place.length {
                let (found, expected) = (row.len(), place.length);
                return bad(
                    position,
                    format!(
                        "field {name:?} is a list of {found}; expected a list of {expected} (as in {INPUT_IDS})"
                    ),
                );
            }
            let start = place.row * self.width + place.start;
            numbers[start..start + place.length].copy_from_slice(row);
        }
        self.tensor(&numbers)
    }

    fn positions(&self) -> Result<Tensor> {
        let mut numbers = vec![0; self.rows * self.width];
        for place in self.places {
            let start = place.row * self.width + place.start;
            for (position, number) in numbers[start..start + place.length].iter_mut().enumerate() {
                *number = i64::try_from(position).context("a position")?;
            }
        }
        self.tensor(&numbers)
    }

    /// Rows x tokens x tokens: 1 where both tokens belong to the same sequence.
    fn blocks(&self) -> Result<Tensor> {
        let width = self.width;
        let mut mask = vec![0_i64; self.rows * width * width];
        for place in self.places {
            for token in place.start..place.start + place.length {
                let start = (place.row * width + token) * width + place.start;
                mask[start..start + place.length].fill(1);
            }
        }
        let (rows, width) = (i64::try_from(self.rows)?, i64::try_from(width)?);
        Ok(Tensor::f_from_slice(&mask)?.f_reshape([rows, width, width])?)
    }
}
