//! The padding collator: token columns are padded to one length, everything else is stacked, labels become `labels`.

use anyhow::{Context, Result, ensure};
use tch::Tensor;

use super::{INPUT_IDS, Numbers, bad, batch_name, is_numeric, stack, values};
use crate::data::{Batch, Collator, Example, Value};
use crate::torch::Generator;

const ATTENTION_MASK: &str = "attention_mask";

/// Where the padding goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// Before the tokens.
    Left,
    /// After the tokens.
    #[default]
    Right,
}

/// How long a batch becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PadTo {
    /// As long as its longest row.
    #[default]
    Longest,
    /// Always so long; a longer row is an error.
    Length(usize),
}

/// How to pad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PaddingSettings {
    /// Fills `input_ids`; `None` if the tokenizer has no such token: rows must then be equally long.
    pub pad_token_id: Option<i64>,
    /// Fills `token_type_ids`.
    pub pad_token_type_id: i64,
    /// Where the padding goes.
    pub side: Side,
    /// How long a batch becomes.
    pub pad_to: PadTo,
    /// Round the length up to a multiple.
    pub pad_to_multiple_of: Option<usize>,
    /// Add an `attention_mask` if the data have none.
    pub add_attention_mask: bool,
}

impl PaddingSettings {
    /// What fills a token column, `None` for columns that are not padded.
    fn filler(&self, column: &str) -> Option<Option<i64>> {
        match column {
            INPUT_IDS => Some(self.pad_token_id),
            "token_type_ids" => Some(Some(self.pad_token_type_id)),
            ATTENTION_MASK => Some(Some(0)),
            "special_tokens_mask" => Some(Some(1)),
            _ => None,
        }
    }

    /// The length of a batch whose longest row has `longest` tokens.
    fn length(&self, longest: usize) -> usize {
        let length = match self.pad_to {
            PadTo::Longest => longest,
            PadTo::Length(length) => length,
        };
        self.pad_to_multiple_of
            .map_or(length, |multiple| length.next_multiple_of(multiple.max(1)))
    }
}

/// Pads `input_ids`, `token_type_ids`, `attention_mask` and `special_tokens_mask`.
#[derive(Clone, Copy, Debug)]
pub struct PaddingCollator {
    settings: PaddingSettings,
}

impl PaddingCollator {
    /// A collator that pads so.
    pub fn new(settings: PaddingSettings) -> Self {
        Self { settings }
    }

    /// The batch, with `label_filler` for label columns if they are rows to be padded like the tokens.
    pub(super) fn collate_with(
        &self,
        examples: &[Example],
        label_filler: Option<i64>,
    ) -> Result<Batch> {
        ensure!(!examples.is_empty(), "a batch needs at least one example");
        let first = &examples[0].columns;
        let ids = first.iter().position(|(name, _)| &**name == INPUT_IDS);
        let ids =
            ids.with_context(|| format!("the padding collator needs a column {INPUT_IDS:?}"))?;
        let rows: Vec<usize> = token_counts(examples, ids)?;
        let batch = Padding {
            settings: &self.settings,
            length: self
                .settings
                .length(rows.iter().copied().max().unwrap_or(0)),
            rows,
        };
        let mut columns = Vec::with_capacity(first.len() + 1);
        for (index, (name, value)) in first
            .iter()
            .enumerate()
            .filter(|(_, (_, value))| is_numeric(value))
        {
            let name_in_batch = batch_name(name);
            let label_filler = label_filler.filter(|_| &*name_in_batch == super::LABELS);
            let filler = label_filler
                .map(Some)
                .or_else(|| self.settings.filler(name));
            let column = values(examples, index, name);
            let tensor = match filler {
                Some(filler) if matches!(value, Value::Ints(_) | Value::Floats(_)) => {
                    batch.pad(name, filler, column)?
                }
                _ => stack(name, examples.len(), column)
                    .map_err(|error| hint_at_padding(error, value))?,
            };
            columns.push((name_in_batch, tensor));
        }
        let has_mask = columns.iter().any(|(name, _)| &**name == ATTENTION_MASK);
        if self.settings.add_attention_mask && !has_mask {
            columns.push((ATTENTION_MASK.into(), batch.mask()?));
        }
        Ok(Batch { columns })
    }
}

impl Collator for PaddingCollator {
    fn collate(&self, examples: &[Example], _draws: &mut Generator) -> Result<Batch> {
        self.collate_with(examples, None)
    }
}

fn token_counts(examples: &[Example], ids: usize) -> Result<Vec<usize>> {
    let count = |(position, value): (usize, &Value)| match value {
        Value::Ints(row) => Ok(row.len()),
        _ => bad(
            position,
            format!("field {INPUT_IDS:?} is no list of integers"),
        ),
    };
    values(examples, ids, INPUT_IDS)
        .enumerate()
        .map(count)
        .collect()
}

fn hint_at_padding(error: anyhow::Error, value: &Value) -> anyhow::Error {
    match error.downcast::<super::BadExample>() {
        Ok(bad) if matches!(value, Value::Ints(_) | Value::Floats(_)) => {
            let message = format!("{}; only token columns are padded", bad.message);
            super::BadExample { message, ..bad }.into()
        }
        Ok(bad) => bad.into(),
        Err(error) => error,
    }
}

/// One batch being padded.
struct Padding<'a> {
    settings: &'a PaddingSettings,
    length: usize,
    /// Tokens of each row.
    rows: Vec<usize>,
}

impl Padding<'_> {
    fn pad<'v>(
        &self,
        name: &str,
        filler: Option<i64>,
        column: impl Iterator<Item = &'v Value>,
    ) -> Result<Tensor> {
        let mut numbers = Numbers::with_capacity(self.rows.len() * self.length);
        for (position, value) in column.enumerate() {
            let (count, tokens) = (row_len(value), self.rows[position]);
            if count != Some(tokens) {
                return bad(
                    position,
                    super::unequal(name, count, Some(tokens))
                        .replace("the batch's first row", INPUT_IDS),
                );
            }
            let Some(missing) = self.length.checked_sub(tokens) else {
                return bad(
                    position,
                    format!(
                        "field {name:?} has {tokens} tokens; padding goes to {}",
                        self.length
                    ),
                );
            };
            let filler = match filler {
                Some(filler) => filler,
                None if missing == 0 => 0,
                None => {
                    return bad(
                        position,
                        "a shorter row cannot be padded: the tokenizer has no padding token",
                    );
                }
            };
            let (before, after) = if self.settings.side == Side::Left {
                (missing, 0)
            } else {
                (0, missing)
            };
            numbers.extend_with(before, filler);
            match value {
                Value::Ints(row) => numbers.extend_ints(row),
                Value::Floats(row) => numbers.extend_floats(row),
                _ => {}
            }
            numbers.extend_with(after, filler);
        }
        numbers.into_tensor(&[self.rows.len() as i64, self.length as i64])
    }

    fn mask(&self) -> Result<Tensor> {
        let ones: Vec<Value> = self
            .rows
            .iter()
            .map(|tokens| Value::Ints(vec![1; *tokens]))
            .collect();
        self.pad(ATTENTION_MASK, Some(0), ones.iter())
    }
}

fn row_len(value: &Value) -> Option<usize> {
    match value {
        Value::Ints(row) => Some(row.len()),
        Value::Floats(row) => Some(row.len()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::super::tests::{collate, contents, example, refusal};
    use super::{PadTo, PaddingCollator, PaddingSettings, Side};
    use crate::data::{Example, Value};

    const SETTINGS: PaddingSettings = PaddingSettings {
        pad_token_id: Some(9),
        pad_token_type_id: 0,
        side: Side::Right,
        pad_to: PadTo::Longest,
        pad_to_multiple_of: None,
        add_attention_mask: false,
    };

    fn rows(lengths: &[usize]) -> Vec<Example> {
        let row = |length: &usize| {
            let ids = Value::Ints((1..=*length as i64).collect());
            example(vec![
                ("input_ids", ids),
                ("token_type_ids", Value::Ints(vec![1; *length])),
                ("label", Value::Int(*length as i64)),
            ])
        };
        lengths.iter().map(row).collect()
    }

    // Row 86 of the spec.
    #[test]
    fn lengths_are_the_references() {
        let cases = [
            (PadTo::Longest, None, 6),
            (PadTo::Length(10), None, 10),
            (PadTo::Longest, Some(8), 8),
            (PadTo::Length(10), Some(8), 16),
        ];
        for (pad_to, pad_to_multiple_of, expected) in cases {
            let collator = PaddingCollator::new(PaddingSettings {
                pad_to,
                pad_to_multiple_of,
                ..SETTINGS
            });
            let batch = collate(&collator, &rows(&[3, 6]));
            assert_eq!(batch.get("input_ids").expect("ids").size(), [2, expected]);
        }
    }

    #[test]
    fn padding_is_on_its_side_and_the_label_is_renamed() {
        let labels = ("labels".to_owned(), Kind::Int64, vec![2], vec![1., 3.]);
        let column = |name: &str, numbers: [f64; 6]| {
            (name.to_owned(), Kind::Int64, vec![2, 3], numbers.to_vec())
        };
        let right = PaddingCollator::new(PaddingSettings {
            add_attention_mask: true,
            ..SETTINGS
        });
        assert_eq!(
            contents(&collate(&right, &rows(&[1, 3]))),
            [
                column("input_ids", [1., 9., 9., 1., 2., 3.]),
                column("token_type_ids", [1., 0., 0., 1., 1., 1.]),
                labels.clone(),
                column("attention_mask", [1., 0., 0., 1., 1., 1.]),
            ]
        );
        let left = PaddingCollator::new(PaddingSettings {
            side: Side::Left,
            ..SETTINGS
        });
        assert_eq!(
            contents(&collate(&left, &rows(&[1, 3]))),
            [
                column("input_ids", [9., 9., 1., 1., 2., 3.]),
                column("token_type_ids", [0., 0., 1., 1., 1., 1.]),
                labels,
            ]
        );
    }

    #[test]
    fn strings_and_nulls_are_left_out() {
        let mut examples = rows(&[2, 2]);
        for example in &mut examples {
            example
                .columns
                .push(("text".into(), Value::Text("a".into())));
            example.columns.push(("nothing".into(), Value::Null));
        }
        let batch = collate(&PaddingCollator::new(SETTINGS), &examples);
        assert_eq!(batch.columns.len(), 3);
    }

    #[test]
    fn rows_that_do_not_fit_are_named() {
        let refuse =
            |settings, examples: &[Example]| refusal(&PaddingCollator::new(settings), examples);
        let no_token = PaddingSettings {
            pad_token_id: None,
            ..SETTINGS
        };
        assert_eq!(
            refuse(no_token, &rows(&[2, 1])),
            "example 1 of the batch: a shorter row cannot be padded: the tokenizer has no padding token"
        );
        let short = PaddingSettings {
            pad_to: PadTo::Length(2),
            ..SETTINGS
        };
        assert_eq!(
            refuse(short, &rows(&[2, 3])),
            "example 1 of the batch: field \"input_ids\" has 3 tokens; padding goes to 2"
        );
        let mut uneven = rows(&[2, 2]);
        uneven[1].columns[1].1 = Value::Ints(vec![1]);
        assert_eq!(
            refuse(SETTINGS, &uneven),
            "example 1 of the batch: field \"token_type_ids\" is a list of 1; expected a list of 2 (as in input_ids)"
        );
        let mut other = rows(&[2, 2]);
        other[0].columns.push(("x".into(), Value::Ints(vec![1])));
        other[1].columns.push(("x".into(), Value::Ints(vec![1, 2])));
        assert!(refuse(SETTINGS, &other).ends_with("only token columns are padded"));
        let without = [example(vec![("x", Value::Int(1))])];
        assert_eq!(
            refuse(SETTINGS, &without),
            "the padding collator needs a column \"input_ids\""
        );
    }
}
