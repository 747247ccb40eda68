//! The token classification collator: the padding collator, with one label for each token padded like the tokens.

use anyhow::Result;

use super::{PaddingCollator, PaddingSettings};
use crate::data::{Batch, Collator, Example};
use crate::torch::Generator;

/// The label that no loss counts.
pub const IGNORED_LABEL: i64 = -100;

/// Pads the labels on the side of the tokens.
#[derive(Clone, Copy, Debug)]
pub struct TokenClassificationCollator {
    tokens: PaddingCollator,
    label_pad_token_id: i64,
}

impl TokenClassificationCollator {
    /// Pads tokens so, and labels with [`IGNORED_LABEL`].
    pub fn new(settings: PaddingSettings) -> Self {
        Self::with_label(settings, IGNORED_LABEL)
    }

    /// Pads tokens so, and labels with `label_pad_token_id`.
    pub fn with_label(settings: PaddingSettings, label_pad_token_id: i64) -> Self {
        Self {
            tokens: PaddingCollator::new(settings),
            label_pad_token_id,
        }
    }
}

impl Collator for TokenClassificationCollator {
    fn collate(&self, examples: &[Example], _draws: &mut Generator) -> Result<Batch> {
        self.tokens
            .collate_with(examples, Some(self.label_pad_token_id))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{collate, contents, example, refusal};
    use super::super::{PaddingSettings, Side};
    use super::TokenClassificationCollator;
    use crate::data::{Example, Value};

    fn rows(name: &str) -> Vec<Example> {
        let row = |ids: &[i64]| {
            let labels = ids.iter().map(|id| id * 10).collect();
            example(vec![
                ("input_ids", Value::Ints(ids.to_vec())),
                (name, Value::Ints(labels)),
            ])
        };
        vec![row(&[1, 2, 3]), row(&[1])]
    }

    // Row 86 of the spec.
    #[test]
    fn labels_are_padded_with_their_own_value_on_the_side_of_the_tokens() {
        let right = PaddingSettings {
            pad_token_id: Some(0),
            ..PaddingSettings::default()
        };
        let left = PaddingSettings {
            side: Side::Left,
            ..right
        };
        let cases = [
            (
                TokenClassificationCollator::new(right),
                [10., 20., 30., 10., -100., -100.],
            ),
            (
                TokenClassificationCollator::new(left),
                [10., 20., 30., -100., -100., 10.],
            ),
            (
                TokenClassificationCollator::with_label(right, -1),
                [10., 20., 30., 10., -1., -1.],
            ),
        ];
        for (collator, expected) in cases {
            for name in ["label", "labels", "label_ids"] {
                let columns = contents(&collate(&collator, &rows(name)));
                let (found, _, shape, numbers) = &columns[1];
                assert_eq!(
                    (found.as_str(), shape.as_slice(), numbers.as_slice()),
                    ("labels", &[2, 3][..], &expected[..])
                );
            }
        }
        let multiple = PaddingSettings {
            pad_to_multiple_of: Some(4),
            ..right
        };
        let batch = collate(&TokenClassificationCollator::new(multiple), &rows("labels"));
        assert!(
            batch
                .columns
                .iter()
                .all(|(_, tensor)| tensor.size() == [2, 4])
        );
    }

    #[test]
    fn a_label_for_each_token_is_needed() {
        let mut examples = rows("labels");
        examples[1].columns[1].1 = Value::Ints(vec![1, 2]);
        let message = refusal(
            &TokenClassificationCollator::new(PaddingSettings {
                pad_token_id: Some(0),
                ..PaddingSettings::default()
            }),
            &examples,
        );
        assert_eq!(
            message,
            "example 1 of the batch: field \"labels\" is a list of 2; expected a list of 1 (as in input_ids)"
        );
    }
}
