//! Collator: pads token columns and stacks the others as the built-in one does, and hides a share of the tokens of rows
//! that are trained with behind the mask token, so that a model does not rely on single words. Labels stay as they are.

use serde::Deserialize;
use trainer_sdk::{
    Collator, Error, Features, Padding, Plugin, Result, Rng, Run, Setup, Tensor, tokenizer,
};

const INPUT_IDS: &str = "input_ids";
const LABELS: &str = "labels";
/// What pads labels of tokens: they do not count.
const IGNORED: f64 = -100.0;

#[derive(Clone, Debug, Deserialize)]
struct Config {
    probability: f64,
    pad_to_multiple_of: u32,
    left: bool,
}

struct TokenMasking {
    config: Config,
    /// Asked for at the first batch: before, there is no tokenizer.
    tokens: Option<Tokens>,
}

#[derive(Clone, Copy)]
struct Tokens {
    pad: f64,
    mask: f64,
}

impl Plugin for TokenMasking {
    type Config = Config;

    fn init(config: Config, _: &Run<'_>, _: &Setup<'_>) -> Result<Self> {
        Ok(Self {
            config,
            tokens: None,
        })
    }
}

impl TokenMasking {
    fn tokens(&mut self) -> Result<Tokens> {
        if let Some(tokens) = self.tokens {
            return Ok(tokens);
        }
        let number = |name: &str| {
            let id = tokenizer::special_id(name)?;
            let missing = || Error::data(format!("the tokenizer has no {name} token"));
            Ok::<f64, Error>(id.ok_or_else(missing)? as f64)
        };
        let tokens = Tokens {
            pad: number("pad")?,
            mask: number("mask")?,
        };
        self.tokens = Some(tokens);
        Ok(tokens)
    }

    /// A column of the batch; `None` for what is no number.
    fn column(&self, features: &Features<'_>, name: &str, pad: f64) -> Result<Option<Tensor>> {
        let first = features.json(name, 0)?;
        if first.starts_with('"') || first.starts_with("[\"") || first == "null" {
            return Ok(None);
        }
        if !first.starts_with('[') {
            return features.stacked(name).map(Some);
        }
        let value = match name {
            INPUT_IDS => pad,
            "special_tokens_mask" => 1.0,
            "label" | "label_ids" | LABELS => IGNORED,
            _ => 0.0,
        };
        let padding = Padding {
            value,
            to_multiple_of: self.config.pad_to_multiple_of,
            left: self.config.left,
        };
        features.padded(name, padding).map(Some)
    }

    /// Hides ordinary tokens.
    fn masked(&self, ids: Tensor, mask: f64, rng: &Rng<'_>) -> Result<Tensor> {
        let drawn = rng.bernoulli(&ids.shape()?, self.config.probability)?;
        let ordinary = (!&tokenizer::special_mask(&ids)?)?;
        ids.fill_where(&(&drawn & &ordinary)?, mask)
    }
}

impl Collator for TokenMasking {
    fn collate(&mut self, features: &Features<'_>, rng: &Rng<'_>) -> Result<Vec<(String, Tensor)>> {
        let tokens = self.tokens()?;
        let mut columns = Vec::new();
        for name in features.columns() {
            let Some(mut column) = self.column(features, &name, tokens.pad)? else {
                continue;
            };
            if name == INPUT_IDS && features.is_training() && self.config.probability > 0.0 {
                column = self.masked(column, tokens.mask, rng)?;
            }
            let name = match name.as_str() {
                "label" | "label_ids" => LABELS.to_owned(),
                _ => name,
            };
            columns.push((name, column));
        }
        Ok(columns)
    }
}

trainer_sdk::manifest!("../manifest.json");
trainer_sdk::export!(TokenMasking: collator);

#[cfg(test)]
mod tests {
    use trainer_sdk::testing::{Cell, Rows, Stream, init, set_special};

    use super::*;

    fn rows(is_training: bool) -> Rows {
        let ids = |ids: &[i64]| Cell::Ints(ids.to_vec());
        Rows::new(is_training)
            .column("input_ids", vec![ids(&[2, 7, 8, 9, 3]), ids(&[2, 7, 3])])
            .column("attention_mask", vec![ids(&[1; 5]), ids(&[1; 3])])
            .column(
                "text",
                vec![Cell::Text("a b c".to_owned()), Cell::Text("a".to_owned())],
            )
            .column("label", vec![Cell::Int(1), Cell::Int(0)])
    }

    fn batch(probability: f64, is_training: bool) -> Result<Vec<(String, Tensor)>> {
        let config = format!(
            "{{\"probability\": {probability}, \"pad_to_multiple_of\": 0, \"left\": false}}"
        );
        let mut plugin = init::<TokenMasking>(&config)?;
        plugin.collate(&rows(is_training).view(), &Stream::new(1).view())
    }

    #[test]
    fn columns_are_padded_stacked_and_renamed() {
        set_special(&[("pad", 0), ("cls", 2), ("sep", 3), ("mask", 4)]);
        let batch = batch(1.0, false).expect("a batch");
        let names: Vec<&str> = batch.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["input_ids", "attention_mask", "labels"]);
        let ids = batch[0].1.read_signed64(0, 10).expect("numbers");
        assert_eq!(ids, [2, 7, 8, 9, 3, 2, 7, 3, 0, 0]);
        assert_eq!(
            batch[1]
                .1
                .sum_all()
                .and_then(|sum| sum.item())
                .expect("a sum"),
            8.0
        );
    }

    #[test]
    fn only_ordinary_tokens_are_hidden() {
        set_special(&[("pad", 0), ("cls", 2), ("sep", 3), ("mask", 4)]);
        let batch = batch(1.0, true).expect("a batch");
        let ids = batch[0].1.read_signed64(0, 10).expect("numbers");
        assert_eq!(ids, [2, 4, 4, 4, 3, 2, 4, 3, 0, 0]);
    }

    #[test]
    fn a_tokenizer_without_a_mask_token_is_refused() {
        set_special(&[("pad", 0)]);
        let error = batch(0.5, true).expect_err("no mask");
        assert_eq!(error.message, "the tokenizer has no mask token");
    }
}
