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
