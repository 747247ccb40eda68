//! Every folder of `examples`: its run on a few rows with a tiny model, and what it promises about its data.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{Host, fixture};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// The folders of `examples` that are runs of `host train`.
const RUNS: &[(&str, &[&str])] = &[("intents", &["train.jsonl", "validation.jsonl"])];
/// Those that are programs; each is a module of this binary.
const PROGRAMS: &[&str] = &["regression"];

#[path = "../examples/regression/main.rs"]
mod regression;

#[test]
fn the_regression_of_a_program_finds_its_line() {
    let _alone = crate::loop_behaviour::stage::alone();
    let folder = tempfile::tempdir().expect("a folder");
    let [a, b, hits] = regression::run(folder.path()).expect("the example");
    assert!((a - 2.0).abs() < 0.05 && (b - 3.0).abs() < 0.05, "{a} {b}");
    assert_eq!(hits, 1.0);
    for name in ["model.safetensors", "trainer_state.json", "curves.svg"] {
        assert!(folder.path().join(name).exists(), "{name}");
    }
}

#[test]
fn every_example_is_run() {
    let mut folders: Vec<String> = fs::read_dir(examples())
        .expect("examples")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    folders.sort();
    let runs = RUNS.iter().map(|(name, _)| *name);
    let known: Vec<&str> = runs.chain(PROGRAMS.iter().copied()).collect();
    assert_eq!(folders, known);
    for name in known {
        assert!(
            examples().join(name).join("README.md").is_file(),
            "{name} has no note"
        );
    }
}

/// A tiny encoder without a head, as pre-trained models come.
fn encoder(host: &Host) -> PathBuf {
    let (source, folder) = (fixture("golden").join("init_toy"), host.path("encoder"));
    fs::create_dir(&folder).expect("a new folder");
    for name in [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
    ] {
        fs::copy(source.join(name), folder.join(name)).expect("a copy");
    }
    let file = host::checkpoint::load::read_tensors(&source.join("model.safetensors"))
        .expect("the weights");
    let weights: Vec<_> = file
        .tensors
        .into_iter()
        .filter(|(name, _)| !name.starts_with("classifier."))
        .collect();
    let options = host::checkpoint::save::WeightsOptions {
        format_pt: true,
        max_shard_bytes: u64::MAX,
    };
    let files = host::checkpoint::save::ModelFiles {
        weights: &weights,
        options,
        config: None,
        copies: &[],
    };
    host::checkpoint::save::write_model(&folder, files).expect("the weights without a head");
    folder
}

/// The configuration as it is, but for the model and the number of rows and steps.
#[test]
fn examples_train() {
    for (name, data) in RUNS {
        let host = Host::new();
        let mut command = host.command("train");
        command.arg(examples().join(name).join("config.toml"));
        command
            .arg("--model")
            .arg(encoder(&host))
            .arg("--output_dir")
            .arg(host.path("out"));
        for (argument, file) in ["--train_file", "--validation_file"].iter().zip(*data) {
            let text = fs::read_to_string(examples().join(name).join(file)).expect("the data");
            let rows: Vec<&str> = text.lines().take(96).collect();
            command
                .arg(argument)
                .arg(host.write(file, &(rows.join("\n") + "\n")));
        }
        command.args(["--num_train_epochs", "2"]);
        host.succeeds(command);
        let results = fs::read_to_string(host.path("out/eval_results.json")).expect("results");
        let results: Value = serde_json::from_str(&results).expect("JSON");
        assert!(results["eval_accuracy"].is_f64(), "{name}: {results}");
    }
}

fn intents(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(examples().join("intents").join(file)).expect("the data");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a row"))
        .collect()
}

/// Letters and digits in lower case, single spaces between words.
fn normalised(text: &str) -> String {
    let words: String = text
        .to_lowercase()
        .chars()
        .map(|letter| {
            if letter.is_alphanumeric() {
                letter
            } else {
                ' '
            }
        })
        .collect();
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn column(rows: &[Value], name: &str) -> HashSet<String> {
    rows.iter()
        .map(|row| normalised(row[name].as_str().expect("a string")))
        .collect()
}

#[test]
fn intents_share_nothing_between_the_splits() {
    let (train, validation) = (intents("train.jsonl"), intents("validation.jsonl"));
    assert!(
        train.len() + validation.len() >= 700,
        "{} and {} rows",
        train.len(),
        validation.len()
    );
    for name in ["text", "template"] {
        let shared: Vec<String> = column(&train, name)
            .intersection(&column(&validation, name))
            .cloned()
            .collect();
        assert!(shared.is_empty(), "in both splits: {shared:?}");
    }
    assert_eq!(
        column(&validation, "text").len(),
        validation.len(),
        "sentences repeat"
    );
    let labels = column(&train, "label");
    assert!(labels.len() >= 6, "{labels:?}");
    assert_eq!(labels, column(&validation, "label"));
}

/// A row's text is its template with the blanks filled in, so the column says the truth.
#[test]
fn intents_name_their_templates() {
    for row in intents("train.jsonl")
        .into_iter()
        .chain(intents("validation.jsonl"))
    {
        let text = normalised(row["text"].as_str().expect("a text"));
        let template = row["template"].as_str().expect("a template");
        let mut rest = text.as_str();
        for part in template.split(['{', '}']).step_by(2).map(normalised) {
            let found = rest
                .find(&part)
                .unwrap_or_else(|| panic!("{part:?} of {template:?} is not in {text:?}"));
            rest = &rest[found + part.len()..];
        }
    }
}

/// The committed files are what `make.py` writes.
#[test]
#[expect(clippy::print_stdout, reason = "a skipped test must be seen")]
fn intents_are_generated() {
    let host = Host::new();
    let script = host.path("make.py");
    fs::copy(examples().join("intents/make.py"), &script).expect("a copy");
    match Command::new("python3").arg(&script).status() {
        Err(error) => println!("skipped: python3 cannot be run: {error}"),
        Ok(status) => {
            assert!(status.success());
            for file in ["train.jsonl", "validation.jsonl"] {
                let written = fs::read_to_string(host.path(file)).expect("its output");
                let committed =
                    fs::read_to_string(examples().join("intents").join(file)).expect("the data");
                assert!(written == committed, "{file} is not what make.py writes");
            }
        }
    }
}
