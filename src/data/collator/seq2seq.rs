//! The collator of sequence-to-sequence models: inputs are padded as ever, labels to a length of their own.

use anyhow::Result;

use super::token_classification::IGNORED_LABEL;
use super::{LABELS, PaddingCollator, PaddingSettings, Side, bad, batch_name};
use crate::data::{Batch, Collator, Example, Value};
use crate::torch::Generator;

/// Pads rows of labels with -100, on the side of the tokens, to the longest of them.
#[derive(Clone, Copy, Debug)]
pub struct Seq2SeqCollator {
    settings: PaddingSettings,
}

impl Seq2SeqCollator {
    /// Pads tokens so; the multiple holds for labels too.
    pub fn new(settings: PaddingSettings) -> Self {
        Self { settings }
    }
}

impl Collator for Seq2SeqCollator {
    fn collate(&self, examples: &[Example], _draws: &mut Generator) -> Result<Batch> {
        let label = |example: &Example| {
            let columns = example.columns.iter();
            columns
                .clone()
                .position(|(name, _)| &*batch_name(name) == LABELS)
        };
        let mut longest = 0;
        for (position, example) in examples.iter().enumerate() {
            match label(example).map(|index| &example.columns[index].1) {
                None => {}
                Some(Value::Ints(row)) => longest = longest.max(row.len()),
                Some(_) => return bad(position, "the labels are no list of integers"),
            }
        }
        let multiple = self.settings.pad_to_multiple_of.unwrap_or(1).max(1);
        let length = longest.next_multiple_of(multiple);
        let mut padded = examples.to_vec();
        for example in &mut padded {
            let Some(index) = label(example) else {
                continue;
            };
            if let Value::Ints(row) = &mut example.columns[index].1 {
                let filler = std::iter::repeat_n(IGNORED_LABEL, length - row.len());
                match self.settings.side {
                    Side::Right => row.extend(filler),
                    Side::Left => drop(row.splice(0..0, filler)),
                }
            }
        }
        PaddingCollator::new(self.settings).collate_with(&padded, None)
    }
}
