//! What stands on BERT's encoder: a classifier over the pooled first token or over every token, or the head that guesses
//! hidden tokens, whose output weights are those of the word embeddings.

use anyhow::Result;
use tch::Tensor;

use super::shape::Shape;
use super::{PREFIX, dropout};
use crate::model::architecture::Blueprint;
use crate::model::config::Task;
use crate::model::layers::{Activation, Dropout, LayerNorm, Linear};
use crate::model::parameters::ParameterSource;
use crate::model::watch::Pass;

const PREDICTIONS: &str = "cls.predictions";
/// Names under which old files repeat the word embeddings and the bias.
pub(super) const TIED: &[&str] = &[
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
];

/// One of the heads.
#[derive(Debug)]
pub(super) enum Head {
    /// Sequence classification with a pooler, token classification without.
    Classifier {
        pooler: Option<Linear>,
        dropout: Dropout,
        classifier: Linear,
    },
    /// Logits over the vocabulary for every token.
    MaskedLm {
        bias: Tensor,
        transform: Linear,
        activation: Activation,
        norm: LayerNorm,
    },
}

impl Head {
    /// Asks for the layers in the order in which PyTorch registers them.
    pub fn make(
        source: &mut ParameterSource,
        blueprint: Blueprint<'_>,
        shape: &Shape,
    ) -> Result<Self> {
        let width = shape.hidden_size;
        if blueprint.task == Task::MaskedLm {
            let transform = format!("{PREDICTIONS}.transform");
            let head = Self::MaskedLm {
                bias: source.bias(&format!("{PREDICTIONS}.bias"), shape.vocab_size)?,
                transform: source.linear(&format!("{transform}.dense"), width, width)?,
                activation: Activation::parse(&shape.hidden_act)?,
                norm: source.layer_norm(
                    &format!("{transform}.LayerNorm"),
                    width,
                    shape.layer_norm_eps,
                )?,
            };
            source.tied_linear(&format!("{PREDICTIONS}.decoder"), shape.vocab_size, width);
            return Ok(head);
        }
        let pooler = match blueprint.task {
            Task::SequenceClassification => {
                Some(source.linear(&format!("{PREFIX}.pooler.dense"), width, width)?)
            }
            Task::TokenClassification | Task::MaskedLm => None,
        };
        let classes = i64::try_from(blueprint.config.num_labels())?;
        Ok(Self::Classifier {
            pooler,
            dropout: dropout(
                "dropout",
                shape
                    .classifier_dropout
                    .unwrap_or(shape.hidden_dropout_prob),
            ),
            classifier: source.linear("classifier", classes, width)?,
        })
    }

    /// Whether there is one output for each row rather than for each token.
    pub fn is_pooled(&self) -> bool {
        matches!(
            self,
            Self::Classifier {
                pooler: Some(_),
                ..
            }
        )
    }

    /// What makes one state of a row out of those of its tokens.
    pub fn pooler(&self) -> Option<&Linear> {
        match self {
            Self::Classifier { pooler, .. } => pooler.as_ref(),
            Self::MaskedLm { .. } => None,
        }
    }

    /// Logits from the pooled state of each row or the state of each token; `words_vd` are the word embeddings.
    pub fn forward(&self, state: &Tensor, words_vd: &Tensor, pass: &Pass) -> Result<Tensor> {
        match self {
            Self::Classifier {
                dropout,
                classifier,
                ..
            } => classifier.forward(&dropout.forward(state, pass)?, pass),
            Self::MaskedLm {
                bias,
                transform,
                activation,
                norm,
            } => {
                let transformed_btd = activation.forward(&transform.forward(state, pass)?)?;
                let transformed_btd = norm.forward(&transformed_btd, pass)?;
                Ok(transformed_btd.f_linear(words_vd, Some(bias))?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use serde_json::Value;
    use tch::{Kind, Tensor};

    use crate::data::collator::{PackingCollator, PaddingCollator, PaddingSettings};
    use crate::data::{Batch, Collator, Example, Value as Cell};
    use crate::model::architecture::{LoadOptions, Loaded, load};
    use crate::model::{Model, Task};
    use crate::torch::Generator;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/masked_lm")
    }

    fn loaded(path: PathBuf, task: Option<Task>) -> Loaded {
        load(&LoadOptions {
            path,
            is_new: false,
            task,
            kind: Kind::Float,
            num_labels: None,
            labels: None,
            problem_type: None,
        })
        .expect("a model")
    }

    /// Rows of token ids, some of them random.
    fn rows(lengths: &[i64]) -> Vec<Example> {
        let row = |length: &i64| {
            let ids = (0..*length).map(|index| 5 + (index * 37 + length * 11) % 170);
            Example {
                columns: vec![("input_ids".into(), Cell::Ints(ids.collect()))],
            }
        };
        lengths.iter().map(row).collect()
    }

    fn padding() -> PaddingSettings {
        PaddingSettings {
            pad_token_id: Some(0),
            add_attention_mask: true,
            ..PaddingSettings::default()
        }
    }

    fn logits(model: &mut dyn Model, batch: &Batch) -> Tensor {
        let outputs = tch::no_grad(|| model.forward(batch)).expect("a pass");
        outputs.logits().expect("logits").shallow_clone()
    }

    fn collated(collator: &dyn Collator, rows: &[Example]) -> Batch {
        let mut draws = Generator::seeded(0).expect("a generator");
        collator.collate(rows, &mut draws).expect("a batch")
    }

    /// Recorded by `tests/fixtures/make_masked_lm.py`; the ids are those of the toy data's first rows.
    #[test]
    fn hidden_tokens_are_guessed_as_recorded_and_tied_weights_are_there_once() {
        let Loaded {
            mut model, report, ..
        } = loaded(folder(), Some(Task::MaskedLm));
        assert_eq!(report.messages(), Vec::<String>::new());
        let names: Vec<String> = model
            .state_dict()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert!(names.contains(&"cls.predictions.bias".to_owned()));
        assert!(!names.iter().any(|name| name.contains("decoder")));
        let text = std::fs::read(folder().join("recorded.json")).expect("a file");
        let recorded: Value = serde_json::from_slice(&text).expect("JSON");
        let parameters = model.parameters().iter();
        let norms: Vec<(&str, f64)> = parameters
            .map(|parameter| {
                (
                    parameter.name.as_str(),
                    recorded["norms"][&parameter.name].as_f64(),
                )
            })
            .map(|(name, norm)| (name, norm.expect("PyTorch has it too")))
            .collect();
        assert_eq!(
            norms.len(),
            recorded["norms"].as_object().expect("norms").len()
        );

        let text = std::fs::read_to_string(folder().join("../collators/recorded.json"));
        let batches: Value = serde_json::from_str(&text.expect("a file")).expect("JSON");
        let ids = batches["masked"]["rows"][0].as_array().expect("rows");
        let row = |ids: &Value| Example {
            columns: vec![(
                "input_ids".into(),
                Cell::Ints(serde_json::from_value(ids.clone()).expect("ids")),
            )],
        };
        let rows: Vec<Example> = ids[..2].iter().map(row).collect();
        let found = logits(
            &mut *model,
            &collated(&PaddingCollator::new(padding()), &rows),
        );
        let expected: Vec<Vec<Vec<f64>>> =
            serde_json::from_value(recorded["logits"].clone()).expect("logits");
        let flat: Vec<f64> = expected.into_iter().flatten().flatten().collect();
        let expected = Tensor::from_slice(&flat)
            .view_as(&found)
            .to_kind(Kind::Float);
        let difference = (found - expected).abs().max().double_value(&[]);
        assert!(difference < 2e-6, "{difference}");
    }

    #[test]
    fn a_head_that_was_pretrained_is_built_only_when_asked_for() {
        let _turn = crate::torch::testing::exclusive();
        assert_eq!(loaded(folder(), None).task, Task::SequenceClassification);
    }

    /// What the model computes for a token does not depend on what is packed beside its sequence.
    #[test]
    fn packed_sequences_do_not_see_each_other() {
        let Loaded { mut model, .. } = loaded(folder(), Some(Task::MaskedLm));
        let rows = rows(&[7, 12, 3, 9, 1]);
        let packed = collated(&PackingCollator::new(padding(), 16), &rows);
        assert_eq!(packed.get("input_ids").expect("ids").size(), [3, 12]);
        let together = logits(&mut *model, &packed);
        // First fit: 7, 3 and 1 with 4 left; 12; 9.
        let places = [(0, 0), (1, 0), (0, 7), (2, 0), (0, 10)];
        for (row, (line, start)) in rows.iter().zip(places) {
            let alone = collated(&PaddingCollator::new(padding()), std::slice::from_ref(row));
            let expected = logits(&mut *model, &alone).select(0, 0);
            let found = together
                .select(0, line)
                .narrow(0, start, expected.size()[0]);
            let difference = (found - expected).abs().max().double_value(&[]);
            assert!(difference < 1e-6, "{difference}");
        }
    }
}
