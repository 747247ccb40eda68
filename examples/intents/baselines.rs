//! What the demo's data gives without fine-tuning, beside the fine-tuned score: a linear classifier on counted words, and
//! one on the sentence vectors of the encoder as it was published.
//!
//! Both baselines get the weight decay that suits them best on the validation rows, which flatters them.
//!
//!     intents-baselines DATA_FOLDER MODEL_FOLDER EVAL_RESULTS.json
#![expect(clippy::print_stdout, reason = "this program is its table")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::data::Batch;
use host::model::{LoadOptions, Model, Task, load};
use serde_json::Value;
use tch::{Device, Kind, Tensor, no_grad};
use tokenizers::Tokenizer;

/// Sentences and their classes.
struct Split {
    texts: Vec<String>,
    labels: Vec<i64>,
}

/// One row of features per sentence.
struct Features {
    train: Tensor,
    validation: Tensor,
}

/// Classes of both splits.
struct Targets {
    train: Tensor,
    validation: Tensor,
    num_classes: i64,
}

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [data, model, results] = &arguments[..] else {
        anyhow::bail!("usage: intents-baselines DATA_FOLDER MODEL_FOLDER EVAL_RESULTS.json");
    };
    let fine_tuned = fine_tuned_accuracy(results)?;
    let mut classes = Vec::new();
    let train = read(&data.join("train.jsonl"), &mut classes)?;
    let validation = read(&data.join("validation.jsonl"), &mut classes)?;
    let targets = Targets {
        train: Tensor::f_from_slice(&train.labels)?,
        validation: Tensor::f_from_slice(&validation.labels)?,
        num_classes: classes.len() as i64,
    };
    let words = no_grad(|| best_accuracy(&counted_words(&train, &validation)?, &targets))?;
    let encoder =
        no_grad(|| best_accuracy(&sentence_vectors(model, &train, &validation)?, &targets))?;
    println!(
        "\n{} sentences to learn from, {} in other words to be tested on, {} intents",
        train.texts.len(),
        validation.texts.len(),
        classes.len()
    );
    println!(
        "  counted words, linear classifier     {:5.1} %",
        100.0 * words
    );
    println!(
        "  untrained encoder, linear classifier {:5.1} %",
        100.0 * encoder
    );
    println!(
        "  fine-tuned encoder                   {:5.1} %  ({:+.1} points)",
        100.0 * fine_tuned,
        100.0 * (fine_tuned - words.max(encoder))
    );
    Ok(())
}

fn fine_tuned_accuracy(path: &Path) -> Result<f64> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read {}; train first", path.display()))?;
    let results: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    results["eval_accuracy"]
        .as_f64()
        .with_context(|| format!("{}: no eval_accuracy", path.display()))
}

/// Reads `text` and `label` of each line; new labels are appended to `classes`.
fn read(path: &Path, classes: &mut Vec<String>) -> Result<Split> {
    let content =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut split = Split {
        texts: Vec::new(),
        labels: Vec::new(),
    };
    for (index, line) in content.lines().enumerate() {
        let place = || format!("{}:{}", path.display(), index + 1);
        let row: Value = serde_json::from_str(line).with_context(place)?;
        let field = |name: &str| {
            row[name]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("{}: no {name}", place()))
        };
        let label = field("label")?;
        let class = classes
            .iter()
            .position(|class| *class == label)
            .unwrap_or_else(|| {
                classes.push(label);
                classes.len() - 1
            });
        split.texts.push(field("text")?);
        split.labels.push(class as i64);
    }
    Ok(split)
}

/// Words and pairs of neighbouring words in lower case.
fn terms(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower
        .split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let pairs = words.windows(2).map(|pair| pair.join(" "));
    words
        .iter()
        .map(|word| (*word).to_owned())
        .chain(pairs)
        .collect()
}

/// Counts of the terms that occur more than once in training, rare ones weighted up (tf-idf); rows of length one.
fn counted_words(train: &Split, validation: &Split) -> Result<Features> {
    let mut occurrences: HashMap<String, usize> = HashMap::new();
    for term in train.texts.iter().flat_map(|text| terms(text)) {
        *occurrences.entry(term).or_insert(0) += 1;
    }
    let mut kept: Vec<String> = occurrences
        .into_iter()
        .filter(|(_, count)| *count > 1)
        .map(|(term, _)| term)
        .collect();
    kept.sort();
    let columns: HashMap<&str, usize> = kept
        .iter()
        .enumerate()
        .map(|(column, term)| (term.as_str(), column))
        .collect();
    let counts = |split: &Split| -> Result<Tensor> {
        let mut values = vec![0.0_f32; split.texts.len() * columns.len()];
        for (row, text) in split.texts.iter().enumerate() {
            for column in terms(text)
                .iter()
                .filter_map(|term| columns.get(term.as_str()))
            {
                values[row * columns.len() + column] += 1.0;
            }
        }
        Ok(Tensor::f_from_slice(&values)?
            .f_view([split.texts.len() as i64, columns.len() as i64])?)
    };
    let (train, validation) = (counts(train)?, counts(validation)?);
    let num_rows = train.size()[0] as f64;
    let rows_with_term = train.f_gt(0.0)?.f_sum_dim_intlist(0, false, Kind::Float)?;
    let weights = rows_with_term
        .f_add_scalar(1.0)?
        .f_reciprocal()?
        .f_mul_scalar(num_rows + 1.0)?
        .f_log()?
        .f_add_scalar(1.0)?;
    Ok(Features {
        train: unit_rows(&train.f_mul(&weights)?)?,
        validation: unit_rows(&validation.f_mul(&weights)?)?,
    })
}

/// Rows scaled to length one.
fn unit_rows(rows: &Tensor) -> Result<Tensor> {
    Ok(rows.f_div(
        &rows
            .f_norm_scalaropt_dim(2.0, 1, true)?
            .f_clamp_min(1e-12)?,
    )?)
}

/// Means over the tokens of the encoder's last layer, as the published model is meant to be used.
fn sentence_vectors(folder: &Path, train: &Split, validation: &Split) -> Result<Features> {
    let tokenizer = folder.join("tokenizer.json");
    let tokenizer = Tokenizer::from_file(&tokenizer)
        .map_err(|error| anyhow::anyhow!("{}: {error}", tokenizer.display()))?;
    let mut encoder = encoder(folder)?;
    let mut vectors = |split: &Split| -> Result<Tensor> {
        let batches = split
            .texts
            .chunks(64)
            .map(|texts| sentence_batch(&mut *encoder, &tokenizer, texts));
        Ok(Tensor::f_cat(&batches.collect::<Result<Vec<_>>>()?, 0)?)
    };
    Ok(Features {
        train: vectors(train)?,
        validation: vectors(validation)?,
    })
}

/// The encoder under a token head that passes the last layer through: the identity.
fn encoder(folder: &Path) -> Result<Box<dyn Model>> {
    let config = folder.join("config.json");
    let config: Value = serde_json::from_str(
        &fs::read_to_string(&config)
            .with_context(|| format!("cannot read {}", config.display()))?,
    )?;
    let hidden_size = config["hidden_size"]
        .as_u64()
        .context("config.json: no hidden_size")?;
    let model = load(&LoadOptions {
        path: folder.to_owned(),
        is_new: false,
        task: Some(Task::TokenClassification),
        kind: Kind::Float,
        num_labels: Some(hidden_size as usize),
        labels: None,
        problem_type: None,
    })?
    .model;
    for parameter in model.parameters() {
        let mut tensor = parameter.tensor.shallow_clone();
        match parameter.name.as_str() {
            "classifier.weight" => tensor.f_copy_(&Tensor::f_eye(
                hidden_size as i64,
                (Kind::Float, Device::Cpu),
            )?)?,
            "classifier.bias" => _ = tensor.f_zero_()?,
            _ => {}
        }
    }
    Ok(model)
}

fn sentence_batch(
    encoder: &mut dyn Model,
    tokenizer: &Tokenizer,
    texts: &[String],
) -> Result<Tensor> {
    let mut encodings = texts
        .iter()
        .map(|text| {
            tokenizer
                .encode_fast(text.as_str(), true)
                .map_err(|error| anyhow::anyhow!("{error}"))
        })
        .collect::<Result<Vec<_>>>()?;
    let length = encodings
        .iter()
        .map(|encoding| encoding.get_ids().len())
        .max()
        .unwrap_or(0);
    for encoding in &mut encodings {
        encoding.pad(length, 0, 0, "[PAD]", tokenizers::PaddingDirection::Right);
    }
    let tensor = |column: fn(&tokenizers::Encoding) -> &[u32]| -> Result<Tensor> {
        let values: Vec<i64> = encodings
            .iter()
            .flat_map(column)
            .map(|value| i64::from(*value))
            .collect();
        Ok(Tensor::f_from_slice(&values)?.f_view([texts.len() as i64, length as i64])?)
    };
    let mask = tensor(tokenizers::Encoding::get_attention_mask)?;
    let columns = [
        ("input_ids", tensor(tokenizers::Encoding::get_ids)?),
        (
            "token_type_ids",
            tensor(tokenizers::Encoding::get_type_ids)?,
        ),
        ("attention_mask", mask.shallow_clone()),
    ];
    let batch = Batch {
        columns: columns.map(|(name, tensor)| (name.into(), tensor)).into(),
    };
    let outputs = encoder.forward(&batch)?;
    let hidden = outputs.logits().context("the encoder returned nothing")?;
    let weights = mask.f_unsqueeze(2)?.f_to_kind(Kind::Float)?;
    unit_rows(
        &hidden
            .f_mul(&weights)?
            .f_sum_dim_intlist(1, false, Kind::Float)?,
    )
}

/// Accuracy on the validation rows of the best of a few weight decays.
fn best_accuracy(features: &Features, targets: &Targets) -> Result<f64> {
    let mut best = 0.0_f64;
    for decay in [1e-3, 1e-4, 1e-5] {
        let (weights, bias) = logistic_regression(features, targets, decay)?;
        let guesses = features
            .validation
            .f_matmul(&weights)?
            .f_add(&bias)?
            .f_argmax(1, false)?;
        let accuracy = guesses
            .f_eq_tensor(&targets.validation)?
            .f_mean(Kind::Float)?
            .f_double_value(&[])?;
        best = best.max(accuracy);
    }
    ensure!(best > 0.0, "the classifier got nothing right");
    Ok(best)
}

/// Multinomial logistic regression by gradient descent with momentum. Rows have length one, so the rate is safe.
fn logistic_regression(
    features: &Features,
    targets: &Targets,
    decay: f64,
) -> Result<(Tensor, Tensor)> {
    const STEPS: usize = 200;
    const RATE: f64 = 4.0;
    const MOMENTUM: f64 = 0.9;
    let x = &features.train;
    let options = (Kind::Float, Device::Cpu);
    let wanted = targets
        .train
        .f_one_hot(targets.num_classes)?
        .f_to_kind(Kind::Float)?;
    let mut weights = Tensor::f_zeros([x.size()[1], targets.num_classes], options)?;
    let mut bias = Tensor::f_zeros([targets.num_classes], options)?;
    let (mut weight_speed, mut bias_speed) = (weights.f_zeros_like()?, bias.f_zeros_like()?);
    for _ in 0..STEPS {
        let guess = x
            .f_matmul(&weights)?
            .f_add(&bias)?
            .f_softmax(1, Kind::Float)?;
        let error = guess.f_sub(&wanted)?.f_div_scalar(x.size()[0] as f64)?;
        let slope = x
            .f_transpose(0, 1)?
            .f_matmul(&error)?
            .f_add(&weights.f_mul_scalar(decay)?)?;
        weight_speed = weight_speed
            .f_mul_scalar(MOMENTUM)?
            .f_sub(&slope.f_mul_scalar(RATE)?)?;
        bias_speed = bias_speed.f_mul_scalar(MOMENTUM)?.f_sub(
            &error
                .f_sum_dim_intlist(0, false, Kind::Float)?
                .f_mul_scalar(RATE)?,
        )?;
        weights = weights.f_add(&weight_speed)?;
        bias = bias.f_add(&bias_speed)?;
    }
    Ok((weights, bias))
}
