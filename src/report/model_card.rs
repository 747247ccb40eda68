//! The model card: what was trained, how, and with which results, as `create_model_card` of 4.34.0 writes it (spec 5.5).
//! People complete it and then remove its comment; from then on it is theirs and is not written again.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value};

use crate::checkpoint::layout;
use crate::checkpoint::save::atomic_write;

const COMMENT: &str = "\n<!-- This model card has been generated automatically according to the information the Trainer had access to. You\n\
     should probably proofread and complete it, then remove this comment. -->\n";

/// Metrics that the Hub knows.
const METRIC_TAGS: &[&str] = &[
    "accuracy",
    "bleu",
    "f1",
    "matthews_correlation",
    "pearsonr",
    "precision",
    "recall",
    "rouge",
    "sacrebleu",
    "spearmanr",
    "wer",
];

/// Values that are of the pass and not of the model.
const SPEED: &[&str] = &[
    "eval_runtime",
    "eval_samples_per_second",
    "eval_steps_per_second",
    "eval_jit_compilation_time",
];

/// What a model was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// A repository of the Hub.
    Hub(String),
    /// A folder or file, whose name means nothing to others.
    Local,
    /// Nothing, as far as is known.
    Scratch,
}

/// What is known of a model besides its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// What it was made from.
    pub base: Base,
    /// Licence of the base.
    pub license: Option<String>,
    /// Tag and name of the task.
    pub task: Option<(&'static str, &'static str)>,
    /// Data sets of the Hub.
    pub datasets: Vec<String>,
    /// Names and values, in order.
    pub hyperparameters: Vec<(&'static str, String)>,
    /// Programs and their versions.
    pub versions: Vec<(&'static str, String)>,
}

/// A row of the table of results, or the last results: names and values in order.
type Values = Vec<(String, Value)>;

/// Writes the card of a run with this log history; false: one that people have made theirs is there.
pub fn write(output_dir: &Path, facts: &Facts, history: &[Map<String, Value>]) -> Result<bool> {
    let path = output_dir.join(layout::MODEL_CARD);
    let mark = COMMENT.lines().find(|line| !line.is_empty());
    let is_theirs = fs::read(&path).is_ok_and(|text| {
        let text = String::from_utf8_lossy(&text);
        mark.is_some_and(|mark| !text.contains(mark))
    });
    if is_theirs {
        return Ok(false);
    }
    atomic_write(&path, text(facts, history).as_bytes())?;
    Ok(true)
}

/// The card.
pub fn text(facts: &Facts, history: &[Map<String, Value>]) -> String {
    let results = last_results(history);
    let mut text = format!("---\n{}---\n{COMMENT}", metadata(facts, results.as_ref()));
    text.push_str(&format!("\n# {}\n\n", facts.name));
    text.push_str(&match &facts.base {
        Base::Hub(name) => {
            format!(
                "This model is a fine-tuned version of [{name}](https://huggingface.co/{name}) on "
            )
        }
        Base::Local => "This model is a fine-tuned version of a local model on ".to_owned(),
        Base::Scratch => "This model was trained from scratch on ".to_owned(),
    });
    text.push_str(&match facts.datasets.as_slice() {
        [] => "an unknown dataset.".to_owned(),
        [one] => format!("the {one} dataset."),
        [others @ .., last] => {
            let others: Vec<String> = others.iter().map(|name| format!("the {name}")).collect();
            format!("{} and the {last} datasets.", others.join(", "))
        }
    });
    if let Some(results) = &results {
        text.push_str("\nIt achieves the following results on the evaluation set:\n");
        let line = |(name, value): &(String, Value)| format!("- {name}: {}", rounded(value));
        let lines: Vec<String> = results.iter().map(line).collect();
        text.push_str(&lines.join("\n"));
    }
    text.push('\n');
    for section in [
        "Model description",
        "Intended uses & limitations",
        "Training and evaluation data",
    ] {
        text.push_str(&format!("\n## {section}\n\nMore information needed\n"));
    }
    text.push_str("\n## Training procedure\n\n### Training hyperparameters\n");
    text.push_str("\nThe following hyperparameters were used during training:\n");
    text.push_str(&listed(&facts.hyperparameters, ": "));
    if let Some(rows) = training_results(history) {
        text.push_str(&format!("\n### Training results\n\n{}\n", table(&rows)));
    }
    text.push_str(&format!(
        "\n### Framework versions\n\n{}",
        listed(&facts.versions, " ")
    ));
    text
}

fn listed(entries: &[(&str, String)], between: &str) -> String {
    let line = |(name, value): &(&str, String)| format!("- {name}{between}{value}\n");
    entries.iter().map(line).collect()
}

/// The last evaluation, its names as titles.
fn last_results(history: &[Map<String, Value>]) -> Option<Values> {
    let last = history
        .iter()
        .rposition(|entry| entry.contains_key("eval_loss"));
    // As the reference, which asks for more than the first entry.
    let entry = &history[last.filter(|last| *last > 0)?];
    let is_result = |name: &str| {
        ![
            "runtime",
            "samples_per_second",
            "steps_per_second",
            "epoch",
            "step",
        ]
        .contains(&name)
    };
    let named = entry
        .iter()
        .map(|(name, value)| (name.strip_prefix("eval_").unwrap_or(name), value));
    Some(
        named
            .filter(|(name, _)| is_result(name))
            .map(|(name, value)| (title(name), value.clone()))
            .collect(),
    )
}

/// One row for each evaluation during training; `None`: the run did not come to its end.
fn training_results(history: &[Map<String, Value>]) -> Option<Vec<Values>> {
    let end = history
        .iter()
        .position(|entry| entry.contains_key("train_runtime"))?;
    let mut rows = Vec::new();
    let mut loss = Value::from("No log");
    for entry in &history[..end] {
        if let Some(logged) = entry.get("loss") {
            loss = logged.clone();
        }
        let Some(validation) = entry.get("eval_loss") else {
            continue;
        };
        let value = |name: &str| entry.get(name).cloned().unwrap_or(Value::Null);
        let mut row: Values = vec![
            ("Training Loss".to_owned(), loss.clone()),
            ("Epoch".to_owned(), value("epoch")),
            ("Step".to_owned(), value("step")),
        ];
        for (name, value) in entry {
            match name.as_str() {
                "total_flos" | "epoch" | "step" => {}
                "eval_loss" => row.push(("Validation Loss".to_owned(), validation.clone())),
                name if SPEED.contains(&name) => {}
                name => {
                    let name = name.split_once('_').map_or("", |(_, name)| name);
                    row.push((title(name), value.clone()));
                }
            }
        }
        rows.push(row);
    }
    Some(rows)
}

/// `matthews_correlation` becomes `Matthews Correlation`.
fn title(name: &str) -> String {
    let capitalised = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|first| first.to_uppercase().to_string());
        first.unwrap_or_default() + &letters.as_str().to_lowercase()
    };
    let words: Vec<String> = name.split('_').map(capitalised).collect();
    words.join(" ")
}

fn table(rows: &[Values]) -> String {
    let Some(first) = rows.first() else {
        return String::new();
    };
    let names: Vec<String> = first.iter().map(|(name, _)| cell(name)).collect();
    let cells = |row: &Values| -> Vec<String> {
        row.iter().map(|(_, value)| cell(&rounded(value))).collect()
    };
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let width = |(column, name): (usize, &String)| {
        let values = rows.iter().filter_map(|row| row.get(column));
        values
            .chain([name])
            .map(|value| value.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = names.iter().enumerate().map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let cells: String = cells
            .map(|(value, width)| format!("| {value:<width$} "))
            .collect();
        format!("{cells}|\n")
    };
    let rule: String = widths
        .iter()
        .map(|width| format!("|:{}:", "-".repeat(*width)))
        .collect();
    let rows: String = rows.iter().map(line).collect();
    format!("{}{rule}|\n{rows}", line(&names))
}

/// Names are given by plugins; in a table they must stay in their cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// Four decimals where there are more.
fn rounded(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => {
            let value = number.as_f64().unwrap_or(f64::NAN);
            let text = python(value);
            match text.split_once('.') {
                Some((_, decimals)) if decimals.len() > 4 => format!("{value:.4}"),
                _ => text,
            }
        }
        Value::String(text) => text.clone(),
        Value::Null => "None".to_owned(),
        other => other.to_string(),
    }
}

/// A float as Python writes it: `5e-05`, `3.0`.
pub fn python(value: f64) -> String {
    let magnitude = value.abs();
    if value.is_nan() {
        return "nan".to_owned();
    }
    if magnitude == 0.0 || magnitude.is_infinite() || (1e-4..1e16).contains(&magnitude) {
        let text = value.to_string();
        let is_whole = text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'-');
        return if is_whole { text + ".0" } else { text };
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// The head of the card, which the Hub reads.
fn metadata(facts: &Facts, results: Option<&Values>) -> String {
    let mut text = String::new();
    if let Some(license) = &facts.license {
        text.push_str(&format!("license: {}\n", scalar(license)));
    }
    if let Base::Hub(name) = &facts.base {
        text.push_str(&format!("base_model: {}\n", scalar(name)));
    }
    text.push_str("tags:\n- generated_from_trainer\n");
    let metrics = metrics(results);
    let tags: Vec<&str> = metrics.iter().map(|(tag, _, _)| *tag).collect();
    let datasets: Vec<&str> = facts.datasets.iter().map(String::as_str).collect();
    for (name, values) in [("datasets", datasets), ("metrics", tags)] {
        if !values.is_empty() {
            let lines = values.iter().map(|value| format!("- {}\n", scalar(value)));
            text.push_str(&format!("{name}:\n{}", lines.collect::<String>()));
        }
    }
    text.push_str(&format!("model-index:\n- name: {}\n", scalar(&facts.name)));
    text.push_str(&index(facts, &metrics));
    text
}

/// Tag, name and value of each metric that the Hub knows.
fn metrics(results: Option<&Values>) -> Vec<(&'static str, &str, &Value)> {
    let mut found = Vec::new();
    for (name, value) in results.into_iter().flatten() {
        let tag = name.to_lowercase().replace(' ', "_");
        let tag = if tag == "rouge1" { "rouge" } else { &tag };
        let known = METRIC_TAGS.iter().find(|known| **known == tag);
        found.extend(known.map(|tag| (*tag, name.as_str(), value)));
    }
    found
}

/// The results of the index: complete ones only, because the Hub takes no others.
fn index(facts: &Facts, metrics: &[(&str, &str, &Value)]) -> String {
    let Some((task, task_name)) = facts
        .task
        .filter(|_| !facts.datasets.is_empty() && !metrics.is_empty())
    else {
        return "  results: []\n".to_owned();
    };
    let mut text = "  results:\n".to_owned();
    for dataset in &facts.datasets {
        let dataset = scalar(dataset);
        text.push_str(&format!(
            "  - task:\n      name: {task_name}\n      type: {task}\n    dataset:\n      name: {dataset}\n      type: {dataset}\n    metrics:\n"
        ));
        for (tag, name, value) in metrics {
            let (name, value) = (scalar(name), number(value));
            text.push_str(&format!(
                "    - name: {name}\n      type: {tag}\n      value: {value}\n"
            ));
        }
    }
    text
}

/// A number as YAML has it.
fn number(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => {
            let text = python(number.as_f64().unwrap_or(f64::NAN));
            match text.split_once('e') {
                Some((digits, exponent)) if !digits.contains('.') => {
                    format!("{digits}.0e{exponent}")
                }
                _ => text,
            }
        }
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "nan" => ".nan".to_owned(),
            "inf" => ".inf".to_owned(),
            "-inf" => "-.inf".to_owned(),
            other => scalar(other),
        },
        other => other.to_string(),
    }
}

/// A text as YAML has it: as it is if nothing else can be meant, else in quotes.
fn scalar(text: &str) -> String {
    let is_plain_letter =
        |letter: char| letter.is_ascii_alphanumeric() || "-_./ ()".contains(letter);
    let words = [
        "", "null", "true", "false", "yes", "no", "on", "off", "y", "n",
    ];
    let is_plain = text.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && !text.ends_with(' ')
        && text.chars().all(is_plain_letter)
        && !words.contains(&text.to_ascii_lowercase().as_str());
    if is_plain {
        text.to_owned()
    } else if text.chars().any(char::is_control) {
        // JSON strings are YAML.
        Value::from(text).to_string()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            name: "tiny-sst2".to_owned(),
            base: Base::Hub("acme/tiny-bert".to_owned()),
            license: Some("apache-2.0".to_owned()),
            task: Some(("text-classification", "Text Classification")),
            datasets: vec!["acme/sst2".to_owned()],
            hyperparameters: vec![
                ("learning_rate", python(5e-5)),
                ("train_batch_size", "8".to_owned()),
                ("eval_batch_size", "16".to_owned()),
                ("seed", "42".to_owned()),
                ("gradient_accumulation_steps", "2".to_owned()),
                ("total_train_batch_size", "16".to_owned()),
                (
                    "optimizer",
                    "Adam with betas=(0.9,0.999) and epsilon=1e-08".to_owned(),
                ),
                ("lr_scheduler_type", "linear".to_owned()),
                ("num_epochs", python(3.0)),
            ],
            versions: vec![("Transformers", "4.34.0".to_owned())],
        }
    }

    fn history() -> Vec<Map<String, Value>> {
        let text = include_str!("../../tests/fixtures/model_card/history.json");
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn the_card_is_the_references() {
        let expected = include_str!("../../tests/fixtures/model_card/card.md");
        assert_eq!(text(&facts(), &history()), expected);
    }

    #[test]
    fn a_card_without_evaluation_and_names_is_the_references() {
        let expected = include_str!("../../tests/fixtures/model_card/bare.md");
        let facts = Facts {
            base: Base::Scratch,
            license: None,
            task: None,
            datasets: Vec::new(),
            ..facts()
        };
        let without: Vec<_> = history()
            .into_iter()
            .filter(|entry| !entry.contains_key("eval_loss"))
            .collect();
        assert_eq!(text(&facts, &without), expected);
    }

    #[test]
    fn a_card_that_people_made_theirs_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let card = folder.path().join(layout::MODEL_CARD);
        let write = || write(folder.path(), &facts(), &history()).expect("written");
        assert!(write());
        assert!(write());
        fs::write(&card, "# Ours\n").expect("a file");
        assert!(!write());
        assert_eq!(fs::read_to_string(&card).expect("text"), "# Ours\n");
    }

    #[test]
    fn floats_and_texts_are_pythons_and_yamls() {
        for (value, expected) in [
            (5e-5, "5e-05"),
            (1.25e-7, "1.25e-07"),
            (1e-4, "0.0001"),
            (3.0, "3.0"),
            (1e16, "1e+16"),
            (123_456_789_012.0, "123456789012.0"),
            (0.1, "0.1"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(python(value), expected);
        }
        for (text, expected) in [
            ("acme/tiny-bert", "acme/tiny-bert"),
            ("no", "'no'"),
            ("it's: x", "'it''s: x'"),
            ("1.5", "'1.5'"),
            ("a\nb", "\"a\\nb\""),
        ] {
            assert_eq!(scalar(text), expected);
        }
    }
}
