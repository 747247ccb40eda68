//! A collator and a loss with every bad habit; `attack` chooses which, `call` at the how-manyeth call it begins.

#[path = "../../hostile/src/attacks.rs"]
#[allow(dead_code)]
mod attacks;

use std::cell::Cell;

use serde::Deserialize;
use trainer_sdk::{
    Batch, Collator, Dtype, Error, Features, Loss, Padding, Plugin, Result, Rng, Run, Setup,
    Stateful, Tensor, tokenizer,
};

#[derive(Clone, Debug, Deserialize)]
struct Config {
    attack: String,
    call: u64,
}

struct Hostile {
    config: Config,
    calls: u64,
}

thread_local! {
    /// A tensor that an earlier call has left here.
    pub(crate) static HELD: Cell<Option<Tensor>> = const { Cell::new(None) };
}

impl Plugin for Hostile {
    type Config = Config;

    fn init(config: Config, _: &Run<'_>, _: &Setup<'_>) -> Result<Self> {
        Ok(Self { config, calls: 0 })
    }
}

impl Hostile {
    /// The attack, from its call on.
    fn attack(&mut self) -> String {
        self.calls += 1;
        if self.calls >= self.config.call {
            self.config.attack.clone()
        } else {
            String::new()
        }
    }
}

impl Collator for Hostile {
    fn collate(&mut self, features: &Features<'_>, rng: &Rng<'_>) -> Result<Vec<(String, Tensor)>> {
        let attack = self.attack();
        let rows = features.len();
        let whole = |shape: &[u64]| Tensor::full(Dtype::Signed64, shape, 1.0);
        let one = |name: &str, tensor: Tensor| (name.to_owned(), tensor);
        let x = features.stacked("x")?;
        Ok(match attack.as_str() {
            "no-columns" => Vec::new(),
            "scalar" => vec![one("x", whole(&[])?)],
            "no-rows" => vec![one("x", whole(&[0, 3])?)],
            "fewer-rows" => vec![one("x", whole(&[rows - 1])?)],
            "unequal-rows" => vec![one("x", x), one("y", whole(&[rows + 1])?)],
            "same-name" => vec![one("x", whole(&[rows])?), one("x", x)],
            "bad-name" => vec![one("x\u{1b}[2J", x)],
            "held" => match HELD.replace(Some(x)) {
                Some(held) => vec![one("x", held)],
                None => vec![one("x", whole(&[rows])?)],
            },
            "kept" => {
                HELD.set(Some(x.keep()?));
                vec![one("x", x)]
            }
            "draws" => vec![one("x", x), one("drawn", rng.uniform(&[rows])?)],
            "counts" => vec![one(
                "x",
                Tensor::full(Dtype::Signed64, &[rows], self.calls as f64)?,
            )],
            "no-column" => vec![one("x", features.stacked("nothing")?)],
            "bad-row" => vec![one("x", features.padded("ragged", Padding::default())?)],
            "far-row" => {
                features.json("x", 1 << 40)?;
                Vec::new()
            }
            "huge-padding" => {
                let padding = Padding {
                    to_multiple_of: u32::MAX,
                    ..Padding::default()
                };
                vec![one("x", features.padded("ids", padding)?)]
            }
            "columns" => return columns(features),
            "tokens" => return tokens(features),
            attack => {
                attacks::compute(attack)?;
                vec![one("x", x)]
            }
        })
    }
}

/// Everything that rows can be asked for, in one tensor for each.
fn columns(features: &Features<'_>) -> Result<Vec<(String, Tensor)>> {
    let rows = features.len();
    let names = features.columns().join(",");
    let lengths: Vec<i64> = features
        .lengths("ids")?
        .iter()
        .map(|length| *length as i64)
        .collect();
    let mut texts = Vec::new();
    let mut numbers = Vec::new();
    for row in 0..rows {
        texts.push(features.text("text", row)?.len() as i64);
        let bytes = features.bytes("ids", row)?;
        numbers.push(i64::from_le_bytes(
            bytes[..8]
                .try_into()
                .map_err(|_| Error::data("no number"))?,
        ));
    }
    if features.json("ids", 0)? != "[1,2]"
        || names != "x,ids,text,scores"
        || features.has("nothing")
    {
        return Err(Error::fatal(format!(
            "{names}: {}",
            features.json("ids", 0)?
        )));
    }
    let whole = |numbers: &[i64]| Tensor::from_signed64(&[rows], numbers);
    Ok(vec![
        ("x".to_owned(), features.stacked("x")?),
        ("scores".to_owned(), features.stacked("scores")?),
        (
            "ids".to_owned(),
            features.padded(
                "ids",
                Padding {
                    value: 9.0,
                    to_multiple_of: 4,
                    left: true,
                },
            )?,
        ),
        ("lengths".to_owned(), whole(&lengths)?),
        ("texts".to_owned(), whole(&texts)?),
        ("numbers".to_owned(), whole(&numbers)?),
        (
            "training".to_owned(),
            Tensor::full(Dtype::Boolean, &[rows], f64::from(features.is_training()))?,
        ),
    ])
}

/// Text through the run's tokenizer and back.
fn tokens(features: &Features<'_>) -> Result<Vec<(String, Tensor)>> {
    let texts: Vec<String> = (0..features.len())
        .map(|row| features.text("text", row))
        .collect::<Result<_>>()?;
    let mut ids = Vec::new();
    for row in tokenizer::encode(&texts)? {
        let row = Tensor::from_signed64(&[1, row.len() as u64], &row)?;
        if tokenizer::special_mask(&row)?.sum_all()?.item()? < 2.0 {
            return Err(Error::data("no special tokens"));
        }
        let text = tokenizer::decode(&row, true)?.remove(0);
        ids.push(text.len() as i64);
    }
    let pad = tokenizer::special_id("pad")?.ok_or_else(|| Error::data("no padding token"))?;
    if tokenizer::special_id("nonsense").is_ok() {
        return Err(Error::fatal("nonsense is a special token"));
    }
    let count = ids.len() as u64;
    Ok(vec![
        ("lengths".to_owned(), Tensor::from_signed64(&[count], &ids)?),
        (
            "pad".to_owned(),
            Tensor::full(Dtype::Signed64, &[count], pad as f64)?,
        ),
    ])
}

impl Loss for Hostile {
    fn compute_loss(&mut self, batch: &Batch<'_>) -> Result<Tensor> {
        let attack = self.attack();
        let logits = batch.logits()?;
        let honest = (&logits * &logits)?.mean(&[], false)?;
        match attack.as_str() {
            "vector" => (&logits * 2.0)?.sum(&[-1], false),
            "whole" => logits.argmax(-1)?.sum_all(),
            "constant" => Tensor::full(Dtype::Float32, &[], 1.0),
            "read" => Tensor::from_float32(&[], &[honest.item()? as f32]),
            "kept" => honest.keep(),
            "held" => match HELD.replace(Some(honest)) {
                Some(held) => Ok(held),
                None => (&logits * 1.0)?.mean(&[], false),
            },
            "kept-held" => match HELD.replace(Some(honest.keep()?)) {
                Some(held) => Ok(held),
                None => Ok(honest),
            },
            "nan" => honest.mul_scalar(f64::NAN),
            "one-element" => honest.reshape(&[1, 1]),
            "graph" => {
                let mut loss = logits.reshape(&[-1, 1])?;
                let ones = Tensor::full(Dtype::Float32, &[1, 1 << 20], 1.0)?;
                for _ in 0..1000 {
                    loss = (&loss.mean(&[], false)? * &ones)?.exp()?;
                }
                loss.mean(&[], false)
            }
            "count" => {
                let (outputs, labels) = (batch.outputs().len(), batch.labels().len());
                let shown = outputs + 10 * labels + 100 * batch.inputs().len();
                (&honest * 0.0)?.add_scalar(shown as f64)
            }
            attack => {
                attacks::compute(attack)?;
                Ok(honest)
            }
        }
    }
}

impl Stateful for Hostile {
    fn save_state(&mut self) -> Result<Vec<u8>> {
        Ok(self.calls.to_le_bytes().to_vec())
    }

    fn restore_state(&mut self, _version: &str, state: &[u8]) -> Result<()> {
        let bytes = state.try_into().map_err(|_| Error::data("not a state"))?;
        self.calls = u64::from_le_bytes(bytes);
        Ok(())
    }
}

trainer_sdk::manifest!("../manifest.json");
trainer_sdk::export!(Hostile: collator, loss, stateful);
