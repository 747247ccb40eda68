//! What BERT's configuration says of the network's shape, and which shapes are refused.

use anyhow::Result;
use serde::Deserialize;

use crate::error::Failure;
use crate::model::config::{ModelConfig, section};
use crate::model::layers::Activation;

/// More layers than any network has: a larger number is a mistake that would only show when memory is used up.
const MAX_LAYERS: usize = 4096;

/// The shape of the network; defaults are those of `BertConfig`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default)]
pub(in crate::model) struct Shape {
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub num_hidden_layers: usize,
    pub num_attention_heads: i64,
    pub intermediate_size: i64,
    pub hidden_act: String,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    pub classifier_dropout: Option<f64>,
    pub max_position_embeddings: i64,
    pub type_vocab_size: i64,
    pub layer_norm_eps: f64,
    pub pad_token_id: Option<i64>,
    pub position_embedding_type: Option<String>,
    pub is_decoder: bool,
    pub add_cross_attention: bool,
    pub pruned_heads: Option<serde_json::Map<String, serde_json::Value>>,
    pub tie_word_embeddings: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".to_owned(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            classifier_dropout: None,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            pad_token_id: Some(0),
            position_embedding_type: None,
            is_decoder: false,
            add_cross_attention: false,
            pruned_heads: None,
            tie_word_embeddings: true,
        }
    }
}

impl Shape {
    pub fn read(config: &ModelConfig) -> Result<Self> {
        let shape: Self = section(config)?;
        match shape.problem() {
            Some(problem) => {
                Err(Failure::data(format!("{}: {problem}", config.source.display())).into())
            }
            None => Ok(shape),
        }
    }

    /// What makes this network impossible or one that is not implemented.
    fn problem(&self) -> Option<String> {
        self.wrong_size()
            .or_else(|| self.wrong_value())
            .or_else(|| self.unsupported())
    }

    fn wrong_size(&self) -> Option<String> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ];
        if let Some((name, value)) = sizes.iter().find(|(_, value)| *value < 1) {
            return Some(format!("{name} {value} is not positive"));
        }
        if self.num_hidden_layers > MAX_LAYERS {
            let layers = self.num_hidden_layers;
            return Some(format!(
                "num_hidden_layers {layers} is more than the {MAX_LAYERS} supported"
            ));
        }
        if self.hidden_size % self.num_attention_heads != 0 {
            let (size, heads) = (self.hidden_size, self.num_attention_heads);
            return Some(format!(
                "hidden_size {size} is not a multiple of num_attention_heads {heads}"
            ));
        }
        let row = self
            .pad_token_id
            .filter(|row| !(0..self.vocab_size).contains(row))?;
        Some(format!(
            "pad_token_id {row} is not in the vocabulary of {}",
            self.vocab_size
        ))
    }

    fn wrong_value(&self) -> Option<String> {
        if self.layer_norm_eps < 0.0 {
            return Some(format!(
                "layer_norm_eps {} is negative",
                self.layer_norm_eps
            ));
        }
        let dropouts = [
            self.hidden_dropout_prob,
            self.attention_probs_dropout_prob,
            self.classifier_dropout.unwrap_or(0.0),
        ];
        if let Some(value) = dropouts.iter().find(|value| !(0.0..=1.0).contains(*value)) {
            return Some(format!(
                "dropout probability {value} is not between 0 and 1"
            ));
        }
        let error = Activation::parse(&self.hidden_act).err()?;
        Some(format!("hidden_act: {error}"))
    }

    fn unsupported(&self) -> Option<String> {
        if let Some(kind) = self
            .position_embedding_type
            .as_deref()
            .filter(|kind| *kind != "absolute")
        {
            return Some(format!(
                "position_embedding_type {kind:?} is not supported; expected \"absolute\""
            ));
        }
        if self.is_decoder || self.add_cross_attention {
            return Some("BERT as a decoder is not supported".to_owned());
        }
        self.pruned_heads
            .as_ref()
            .filter(|heads| !heads.is_empty())
            .map(|_| "pruned_heads are not supported".to_owned())
    }
}
