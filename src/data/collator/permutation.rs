//! The permutation language model collator (XLNet): spans of tokens are to be guessed, each from the tokens that come
//! before it in a random order. Draws and their order are those of the reference.

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor};

use super::language_model::{Vocabulary, numbers};
use super::token_classification::IGNORED_LABEL;
use super::{INPUT_IDS, LABELS, PaddingCollator, PaddingSettings};
use crate::data::{Batch, Collator, Example};
use crate::error::Failure;
use crate::torch::Generator;

/// How spans are chosen.
#[derive(Clone, Debug)]
pub struct PermutationSettings {
    /// Share of the tokens that are guessed.
    pub probability: f64,
    /// The longest span.
    pub max_span: i64,
    /// The tokens.
    pub vocabulary: Vocabulary,
}

/// Makes `input_ids`, `perm_mask`, `target_mapping` and `labels` of the rows' `input_ids`.
#[derive(Clone, Debug)]
pub struct PermutationCollator {
    settings: PermutationSettings,
    padding: PaddingSettings,
}

impl PermutationCollator {
    /// Spans by `settings`, rows padded to their longest.
    pub fn new(settings: PermutationSettings, padding: PaddingSettings) -> Self {
        Self { settings, padding }
    }

    /// Which of a row's tokens lie in spans.
    fn spans(&self, length: usize, draws: &mut Generator) -> Result<Vec<bool>> {
        let mut chosen = vec![false; length];
        let mut place = 0;
        while place < length {
            let span = one(draws, 1, self.settings.max_span + 1)?;
            let context = (span as f64 / self.settings.probability) as i64;
            let start = place + usize::try_from(one(draws, 0, context - span + 1)?)?;
            let end = (start + usize::try_from(span)?).min(length);
            chosen[start.min(length)..end].fill(true);
            place += usize::try_from(context)?;
        }
        Ok(chosen)
    }
}

/// One number from `low` to below `high`.
fn one(draws: &mut Generator, low: i64, high: i64) -> Result<i64> {
    Ok(draws.randint(low, high, &[1])?.f_int64_value(&[0])?)
}

impl Collator for PermutationCollator {
    fn collate(&self, examples: &[Example], draws: &mut Generator) -> Result<Batch> {
        let mut batch = PaddingCollator::new(self.padding).collate_with(examples, None)?;
        let ids_bt = batch.take(INPUT_IDS).unwrap_or_default();
        let (rows, length) = ids_bt.size2()?;
        ensure!(
            length % 2 == 0,
            Failure::data(format!(
                "permutation language modeling needs rows of even length, and these have {length} tokens"
            ))
            .hint("set --pad_to_multiple_of 2")
        );
        let width = usize::try_from(length)?;
        let mut ids = numbers(&ids_bt)?;
        let mut guessed = Vec::with_capacity(ids.len());
        for _ in 0..rows {
            guessed.extend(self.spans(width, draws)?);
        }
        let vocabulary = &self.settings.vocabulary;
        let is_functional =
            |id: &i64| vocabulary.is_special(*id) || Some(*id) == self.padding.pad_token_id;
        let functional: Vec<bool> = ids.iter().map(is_functional).collect();
        let mut labels = vec![IGNORED_LABEL; ids.len()];
        for index in 0..ids.len() {
            guessed[index] &= !functional[index];
            if guessed[index] {
                labels[index] = std::mem::replace(&mut ids[index], vocabulary.mask_token_id);
            }
        }
        let mut hidden: Vec<f32> = Vec::with_capacity(ids.len() * width);
        for row in 0..usize::try_from(rows)? {
            let range = row * width..(row + 1) * width;
            hidden.extend(order_mask(
                &guessed[range.clone()],
                &functional[range],
                draws,
            )?);
        }
        let square = [rows, length, length];
        let identity = Tensor::f_eye(length, (Kind::Float, Device::Cpu))?;
        Ok(Batch {
            columns: vec![
                (
                    INPUT_IDS.into(),
                    Tensor::f_from_slice(&ids)?.f_reshape([rows, length])?,
                ),
                (
                    "perm_mask".into(),
                    Tensor::f_from_slice(&hidden)?.f_reshape(square)?,
                ),
                (
                    "target_mapping".into(),
                    identity.f_expand(square, false)?.f_contiguous()?,
                ),
                (
                    LABELS.into(),
                    Tensor::f_from_slice(&labels)?.f_reshape([rows, length])?,
                ),
            ],
        })
    }

    fn is_random(&self) -> bool {
        true
    }
}

/// For each token of a row which others it cannot see (1): guessed ones that come later in a random order, in which the two
/// halves of the row do not cross over.
fn order_mask(guessed: &[bool], functional: &[bool], draws: &mut Generator) -> Result<Vec<f32>> {
    let half = guessed.len() / 2;
    let order = draws.randperm(half)?;
    let place = |index: usize| {
        if guessed[index] || functional[index] {
            i64::try_from(order[index % half] + index / half * half)
        } else {
            Ok(-1)
        }
    };
    let places = (0..guessed.len())
        .map(place)
        .collect::<Result<Vec<_>, _>>()?;
    let sees_not = |from: i64| {
        places
            .iter()
            .zip(guessed)
            .map(move |(to, guessed)| f32::from(u8::from(from <= *to && *guessed)))
    };
    Ok(places.iter().flat_map(|from| sees_not(*from)).collect())
}
