//! Which collator a run gets: the one it names, else that of its task, if the model can take what it makes.

use anyhow::Result;

use super::inputs::Inputs;
use crate::config::run;
use crate::data::collator::{
    DefaultCollator, LanguageModelCollator, Objective, PackingCollator, PadTo, PaddingCollator,
    PaddingSettings, PermutationCollator, PermutationSettings, Seq2SeqCollator,
    TokenClassificationCollator, Vocabulary,
};
use crate::data::{Collator, Tokenizer};
use crate::error::Failure;
use crate::model::Task;

const LANGUAGE_MODEL: &str = "language_modeling";
const PERMUTATION: &str = "permutation_language_modeling";
const PACKING: &str = "packing";

/// The collator's name: as given, else by the task.
pub(super) fn name(data: &run::Data, task: Option<Task>, has_tokenizer: bool) -> &str {
    match (&data.collation.name, task) {
        (Some(name), _) => name,
        (None, Some(Task::TokenClassification)) => "token_classification",
        (None, Some(Task::MaskedLm)) => LANGUAGE_MODEL,
        (None, _) if has_tokenizer => "padding",
        (None, _) => "default",
    }
}

/// Whether the labels are made of the tokens, whatever labels the rows have.
pub(super) fn makes_labels(name: &str, task: Option<Task>) -> bool {
    [LANGUAGE_MODEL, PERMUTATION].contains(&name) || task == Some(Task::MaskedLm)
}

/// Refuses what no native model of this task could be trained with; a TorchScript module takes what its `forward` names.
pub(super) fn check(data: &run::Data, task: Option<Task>, name: &str) -> Result<()> {
    let fits: &[&str] = match task {
        Some(Task::SequenceClassification) => &["default", "padding"],
        Some(Task::TokenClassification) => &["default", "padding", "token_classification", PACKING],
        Some(Task::MaskedLm) => &[LANGUAGE_MODEL, PACKING],
        None => &[
            "default",
            "padding",
            "token_classification",
            LANGUAGE_MODEL,
            PERMUTATION,
            "seq2seq",
        ],
    };
    if !fits.contains(&name) {
        let what = task.map_or("TorchScript modules", Task::name);
        let message = format!("data_collator {name} does not go with {what}");
        let hint = format!("use one of {}", fits.join(", "));
        return Err(Failure::usage(message).hint(hint).into());
    }
    if task == Some(Task::MaskedLm) && !data.collation.mlm {
        let message = "mlm is false, but a masked language model guesses hidden tokens: it sees both sides of each";
        return Err(Failure::usage(message).hint("leave --mlm out").into());
    }
    Ok(())
}

impl Inputs {
    /// A plugin's collator if there is one, told whether the rows are trained with; else a built-in one.
    pub(super) fn collator(
        &self,
        data: &run::Data,
        is_training: bool,
    ) -> Result<Box<dyn Collator>> {
        if let Some(make) = &self.plugin_collators {
            return Ok(make(is_training));
        }
        let name = name(data, self.task, self.tokenizer.is_some());
        if name == "default" {
            return Ok(Box::new(DefaultCollator));
        }
        let Some(tokenizer) = &self.tokenizer else {
            let message = format!("data_collator {name} needs a tokenizer");
            return Err(Failure::usage(message).hint("set --tokenizer_name").into());
        };
        let settings = self.padding(tokenizer, data)?;
        let rows: Box<dyn Collator> = match name {
            PACKING => Box::new(PackingCollator::new(settings, self.length("packing")?)),
            "token_classification" => Box::new(TokenClassificationCollator::new(settings)),
            "seq2seq" => Box::new(Seq2SeqCollator::new(settings)),
            PERMUTATION => {
                let settings = (settings, permutation(tokenizer, data)?);
                Box::new(PermutationCollator::new(settings.1, settings.0))
            }
            _ => Box::new(PaddingCollator::new(settings)),
        };
        if name == PERMUTATION || !makes_labels(name, self.task) {
            return Ok(rows);
        }
        let objective = if data.collation.mlm {
            Objective::Masked {
                probability: data.collation.mlm_probability,
                vocabulary: vocabulary(
                    tokenizer,
                    "masked language modeling",
                    "set --mlm false for causal language modeling",
                )?,
            }
        } else {
            Objective::Causal {
                pad_token_id: settings.pad_token_id,
            }
        };
        Ok(Box::new(LanguageModelCollator::new(rows, objective)))
    }

    pub(super) fn padding(
        &self,
        tokenizer: &Tokenizer,
        data: &run::Data,
    ) -> Result<PaddingSettings> {
        let mut settings = tokenizer.padding();
        settings.pad_to_multiple_of = data.pad_to_multiple_of;
        if data.pad_to_max_length {
            settings.pad_to = PadTo::Length(self.length("pad_to_max_length")?);
        }
        Ok(settings)
    }

    /// The length of full rows.
    fn length(&self, wanted_by: &str) -> Result<usize> {
        self.max_length.ok_or_else(|| {
            let message = format!(
                "{wanted_by} needs a length, and neither the tokenizer nor the model has one"
            );
            Failure::usage(message).hint("set --max_length").into()
        })
    }
}

fn permutation(tokenizer: &Tokenizer, data: &run::Data) -> Result<PermutationSettings> {
    let hint = "give a tokenizer with one";
    Ok(PermutationSettings {
        probability: data.collation.plm_probability,
        max_span: i64::try_from(data.collation.max_span_length)?,
        vocabulary: vocabulary(tokenizer, "permutation language modeling", hint)?,
    })
}

fn vocabulary(tokenizer: &Tokenizer, wanted_by: &str, hint: &str) -> Result<Vocabulary> {
    let missing = || {
        let message = format!("the tokenizer has no mask token, which {wanted_by} needs");
        Failure::usage(message).hint(hint)
    };
    Ok(Vocabulary {
        mask_token_id: tokenizer.mask_token_id().ok_or_else(missing)?,
        special_ids: tokenizer.special_ids().to_vec(),
        size: tokenizer.vocabulary_size(),
    })
}
