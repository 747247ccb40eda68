//! The language model collator: tokens to be guessed are hidden at random (masked), or every token is its own label
//! (causal). Draws and their order are those of the reference (spec 2, collators).

use std::sync::Arc;

use anyhow::{Context, Result};
use tch::{Kind, Tensor};

use super::token_classification::IGNORED_LABEL;
use super::{INPUT_IDS, LABELS};
use crate::data::{Batch, Collator, Example};
use crate::torch::Generator;

const SPECIAL_TOKENS_MASK: &str = "special_tokens_mask";
/// Of the hidden tokens so many become the mask token.
const SHARE_MASKED: f64 = 0.8;
/// Of the others so many become any token.
const SHARE_RANDOM: f64 = 0.5;

/// What a tokenizer says of the tokens that are hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// Stands for a hidden token.
    pub mask_token_id: i64,
    /// Tokens that are never hidden.
    pub special_ids: Vec<i64>,
    /// Token ids are below this.
    pub size: usize,
}

impl Vocabulary {
    pub(super) fn is_special(&self, id: i64) -> bool {
        self.special_ids.contains(&id)
    }
}

/// How labels are made of tokens.
#[derive(Clone, Debug)]
pub enum Objective {
    /// Hide each token with this probability; the label is the hidden token.
    Masked {
        /// Between 0 and 1.
        probability: f64,
        /// The tokens.
        vocabulary: Vocabulary,
    },
    /// The label is the token itself; the model shifts.
    Causal {
        /// Padding is no label.
        pad_token_id: Option<i64>,
    },
}

/// Lets another collator make the rows, and the labels from their tokens. Labels that the rows have are left out.
pub struct LanguageModelCollator {
    rows: Box<dyn Collator>,
    objective: Objective,
}

impl LanguageModelCollator {
    /// Labels by `objective` for rows that `rows` pads or packs.
    pub fn new(rows: Box<dyn Collator>, objective: Objective) -> Self {
        Self { rows, objective }
    }
}

impl Collator for LanguageModelCollator {
    fn collate(&self, examples: &[Example], draws: &mut Generator) -> Result<Batch> {
        let mut batch = self.rows.collate(examples, draws)?;
        drop(batch.take(LABELS));
        let given = batch.take(SPECIAL_TOKENS_MASK);
        let position = batch
            .columns
            .iter()
            .position(|(name, _)| &**name == INPUT_IDS);
        let position = position.context("the rows have no input_ids")?;
        let ids = &batch.columns[position].1;
        let (shown, labels) = match &self.objective {
            Objective::Masked {
                probability,
                vocabulary,
            } => mask(ids, given.as_ref(), (*probability, vocabulary), draws)?,
            Objective::Causal { pad_token_id } => {
                let mut labels = numbers(ids)?;
                labels
                    .iter_mut()
                    .filter(|id| Some(**id) == *pad_token_id)
                    .for_each(|id| *id = IGNORED_LABEL);
                (ids.shallow_clone(), tensor(&labels, &ids.size())?)
            }
        };
        batch.columns[position].1 = shown;
        batch.columns.push((Arc::from(LABELS), labels));
        Ok(batch)
    }

    fn is_random(&self) -> bool {
        matches!(self.objective, Objective::Masked { .. }) || self.rows.is_random()
    }
}

/// Tokens with some of them hidden, and the labels. Each of the four draws is over the whole shape.
fn mask(
    ids_bt: &Tensor,
    given_special_bt: Option<&Tensor>,
    (probability, vocabulary): (f64, &Vocabulary),
    draws: &mut Generator,
) -> Result<(Tensor, Tensor)> {
    let shape = ids_bt.size();
    let mut ids = numbers(ids_bt)?;
    let special: Vec<bool> = match given_special_bt {
        Some(given) => numbers(given)?.into_iter().map(|flag| flag != 0).collect(),
        None => ids.iter().map(|id| vocabulary.is_special(*id)).collect(),
    };
    let chance = |is_special: &bool| if *is_special { 0.0 } else { probability as f32 };
    let chances: Vec<f32> = special.iter().map(chance).collect();
    let hidden = flags(&draws.bernoulli(&Tensor::f_from_slice(&chances)?.f_reshape(&shape)?)?)?;
    let masked = even_draw(SHARE_MASKED, &shape, draws)?;
    let random = even_draw(SHARE_RANDOM, &shape, draws)?;
    let size = i64::try_from(vocabulary.size)?;
    let words = numbers(&draws.randint(0, size, &shape)?)?;
    let mut labels = vec![IGNORED_LABEL; ids.len()];
    for index in (0..ids.len()).filter(|index| hidden[*index]) {
        labels[index] = ids[index];
        if masked[index] {
            ids[index] = vocabulary.mask_token_id;
        } else if random[index] {
            ids[index] = words[index];
        }
    }
    Ok((tensor(&ids, &shape)?, tensor(&labels, &shape)?))
}

/// True with the same probability everywhere.
fn even_draw(probability: f64, shape: &[i64], draws: &mut Generator) -> Result<Vec<bool>> {
    let count = shape.iter().product::<i64>();
    let chances = vec![probability as f32; usize::try_from(count)?];
    flags(&draws.bernoulli(&Tensor::f_from_slice(&chances)?.f_reshape(shape)?)?)
}

fn flags(drawn: &Tensor) -> Result<Vec<bool>> {
    Ok(Vec::try_from(
        &drawn.f_reshape([-1])?.f_to_kind(Kind::Bool)?,
    )?)
}

pub(super) fn numbers(tensor: &Tensor) -> Result<Vec<i64>> {
    Ok(Vec::try_from(&tensor.f_reshape([-1])?)?)
}

fn tensor(numbers: &[i64], shape: &[i64]) -> Result<Tensor> {
    Ok(Tensor::f_from_slice(numbers)?.f_reshape(shape)?)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::Value as Json;

    use super::super::tests::{contents, example};
    use super::super::{PackingCollator, Seq2SeqCollator};
    use super::super::{
        PaddingCollator, PaddingSettings, PermutationCollator, PermutationSettings,
    };
    use super::{LanguageModelCollator, Objective, Vocabulary};
    use crate::data::tokenizer::Tokenizer;
    use crate::data::{Batch, Collator, Example, Value};
    use crate::torch::testing::seeded;
    use crate::torch::{Generator, default_random_int64};

    /// `tests/fixtures/make_collators.py`.
    fn recorded(name: &str) -> Json {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = folder.join("tests/fixtures/collators/recorded.json");
        let text = std::fs::read(path).expect("the recorded batches");
        let mut all: Json = serde_json::from_slice(&text).expect("JSON");
        all[name].take()
    }

    fn tokenizer() -> Tokenizer {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        Tokenizer::load(&folder.join("tests/data/tokenizer")).expect("the tokenizer")
    }

    fn vocabulary() -> Vocabulary {
        let tokenizer = tokenizer();
        Vocabulary {
            mask_token_id: tokenizer.mask_token_id().expect("a mask token"),
            special_ids: tokenizer.special_ids().to_vec(),
            size: tokenizer.vocabulary_size(),
        }
    }

    fn padding(multiple: Option<usize>) -> PaddingSettings {
        PaddingSettings {
            pad_to_multiple_of: multiple,
            ..tokenizer().padding()
        }
    }

    fn masked(probability: f64, multiple: Option<usize>) -> LanguageModelCollator {
        let objective = Objective::Masked {
            probability,
            vocabulary: vocabulary(),
        };
        let rows = PaddingCollator::new(padding(multiple));
        LanguageModelCollator::new(Box::new(rows), objective)
    }

    fn ids(row: &Json) -> Vec<i64> {
        let numbers = row.as_array().expect("a row").iter();
        numbers.map(|id| id.as_i64().expect("an id")).collect()
    }

    fn numbers(value: &Json) -> Vec<f64> {
        match value {
            Json::Array(values) => values.iter().flat_map(numbers).collect(),
            number => vec![number.as_f64().expect("a number")],
        }
    }

    /// Every column of the batch is the recorded one.
    fn check(batch: &Batch, recorded: &Json, what: &str) {
        let columns = recorded.as_object().expect("columns");
        assert_eq!(batch.columns.len(), columns.len(), "{what}");
        for (name, _, _, found) in contents(batch) {
            assert_eq!(found, numbers(&columns[&name]), "{what}: {name}");
        }
    }

    type Features = fn(Vec<i64>) -> Vec<(&'static str, Value)>;

    /// A case's batches, drawn one after the other from the default generator, and what follows them.
    fn replay(name: &str, collator: &dyn Collator, features: Features) {
        let case = recorded(name);
        seeded(42, || {
            let mut draws = Generator::default_cpu().expect("the default generator");
            let batches = case["rows"].as_array().expect("batches").iter();
            for (index, rows) in batches.enumerate() {
                let rows = rows.as_array().expect("rows").iter();
                let rows: Vec<Example> = rows.map(|row| example(features(ids(row)))).collect();
                let batch = collator.collate(&rows, &mut draws).expect("a batch");
                check(&batch, &case["batches"][index], &format!("{name} {index}"));
            }
            let next = default_random_int64().expect("a draw");
            assert_eq!(Some(next), case["next"].as_i64(), "{name}");
        });
    }

    fn tokens(ids: Vec<i64>) -> Vec<(&'static str, Value)> {
        vec![("input_ids", Value::Ints(ids))]
    }

    // Row 87 of the spec.
    #[test]
    fn masks_are_the_references_draw_for_draw() {
        replay("masked", &masked(0.15, None), tokens);
        replay("masked_often", &masked(0.5, Some(8)), tokens);
        replay("given_special_tokens", &masked(0.15, None), |ids| {
            let flags = (0..ids.len() as i64).map(|index| index % 2).collect();
            vec![
                ("input_ids", Value::Ints(ids)),
                ("special_tokens_mask", Value::Ints(flags)),
                // Other labels give way to the tokens.
                ("label", Value::Int(7)),
            ]
        });
        let objective = Objective::Causal {
            pad_token_id: padding(None).pad_token_id,
        };
        let rows = PaddingCollator::new(padding(None));
        let causal = LanguageModelCollator::new(Box::new(rows), objective);
        assert!(!causal.is_random() && masked(0.15, None).is_random());
        replay("causal", &causal, tokens);
    }

    // Row 87 of the spec.
    #[test]
    fn permutations_are_the_references_draw_for_draw() {
        let settings = PermutationSettings {
            probability: 1.0 / 6.0,
            max_span: 5,
            vocabulary: vocabulary(),
        };
        let collator = PermutationCollator::new(settings, padding(None));
        replay("permuted", &collator, tokens);
        let row = |len: i64| example(tokens((5..5 + len).collect()));
        let mut draws = Generator::seeded(0).expect("a generator");
        let batch = collator.collate(&[row(10), row(10)], &mut draws);
        let sizes = contents(&batch.expect("a batch")).into_iter();
        let sizes: Vec<_> = sizes.map(|(_, _, size, _)| size).collect();
        let square = vec![2, 10, 10];
        assert_eq!(sizes, [vec![2, 10], square.clone(), square, vec![2, 10]]);
        let odd = collator.collate(&[row(9)], &mut draws);
        let error = odd.expect_err("an odd length").to_string();
        assert!(error.contains("even length, and these have 9"), "{error}");
    }

    #[test]
    fn labels_of_sequences_have_their_own_length() {
        replay("seq2seq", &Seq2SeqCollator::new(padding(Some(4))), |ids| {
            let mut labels = ids[1..4].to_vec();
            labels.extend(ids[..2].repeat(ids.len() % 3));
            vec![
                ("input_ids", Value::Ints(ids)),
                ("labels", Value::Ints(labels)),
            ]
        });
    }

    /// The worker rule of field 54, as real worker processes recorded it.
    #[test]
    fn masks_of_workers_are_the_references() {
        use crate::data::loader::{Batching, Loader};
        use crate::data::{Table, sampler::Sequential};
        let case = recorded("workers");
        let rows = case["rows"].as_array().expect("rows").iter();
        let rows: Vec<Example> = rows.map(|row| example(tokens(ids(row)))).collect();
        let batching = Batching {
            workers: 2,
            ..Batching::new(Box::new(masked(0.15, None)), 2)
        };
        let mut loader = Loader::new(
            (
                std::sync::Arc::new(Table::from_examples(&rows).expect("a table")),
                Box::new(Sequential),
            ),
            batching,
        )
        .expect("a loader");
        seeded(42, || {
            for (index, batch) in loader.epoch().expect("an epoch").enumerate() {
                let batch = batch.expect("a batch").batch;
                check(&batch, &case["batches"][index], &format!("batch {index}"));
            }
        });
    }

    #[test]
    fn packed_sequences_fill_rows_in_order_and_see_only_themselves() {
        let row = |ids: &[i64]| {
            example(vec![
                ("input_ids", Value::Ints(ids.to_vec())),
                (
                    "labels",
                    Value::Ints(ids.iter().map(|id| id * 10).collect()),
                ),
            ])
        };
        let collator = PackingCollator::new(padding(None), 5);
        let rows = [row(&[5, 6, 7]), row(&[8, 9, 10, 11]), row(&[12, 13])];
        let mut draws = Generator::seeded(0).expect("a generator");
        let batch = collator.collate(&rows, &mut draws).expect("a batch");
        let found = |name: &str| {
            let mut columns = contents(&batch).into_iter();
            let column = columns.find(|(known, ..)| known == name);
            column
                .map(|(_, _, size, numbers)| (size, numbers))
                .expect(name)
        };
        let square = vec![2, 5];
        assert_eq!(
            found("input_ids"),
            (
                square.clone(),
                vec![5., 6., 7., 12., 13., 8., 9., 10., 11., 0.]
            )
        );
        assert_eq!(
            found("labels"),
            (
                square.clone(),
                vec![50., 60., 70., 120., 130., 80., 90., 100., 110., -100.]
            )
        );
        assert_eq!(
            found("position_ids"),
            (square, vec![0., 1., 2., 0., 1., 0., 1., 2., 3., 0.])
        );
        let (size, mask) = found("attention_mask");
        assert_eq!(size, [2, 5, 5]);
        let sequence = [
            Some(0),
            Some(0),
            Some(0),
            Some(1),
            Some(1),
            Some(2),
            Some(2),
            Some(2),
            Some(2),
            None,
        ];
        for (index, value) in mask.iter().enumerate() {
            let (row, from, to) = (index / 25, index / 5 % 5, index % 5);
            let (from, to) = (sequence[row * 5 + from], sequence[row * 5 + to]);
            let expected = f64::from(u8::from(from.is_some() && from == to));
            assert_eq!(*value, expected, "{index}");
        }
        let single = example(vec![
            ("input_ids", Value::Ints(vec![5])),
            ("label", Value::Int(1)),
        ]);
        let error = collator
            .collate(&[single], &mut draws)
            .expect_err("one label a row");
        assert!(
            error.to_string().contains("one value for each token"),
            "{error}"
        );
    }
}
