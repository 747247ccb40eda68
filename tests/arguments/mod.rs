//! What each argument does, seen from outside: short runs of the real program that differ in one argument, compared by their
//! records of batches and updates, their log histories and their files. Arguments whose numbers are recorded elsewhere
//! have their proof there; `host args --check` knows which test is whose.

mod checkpoints;
mod data;
mod evaluation;
mod logging;
mod model;
mod optimizer;
mod training;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Host, copy, fixture};

/// One micro-batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Micro {
    step: u64,
    rows: Vec<u64>,
    loss: f64,
}

/// One update.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    gradient_norm: Option<f64>,
    rate: f64,
}

/// What a run left.
#[derive(Debug)]
pub struct Recorded {
    batches: Vec<Micro>,
    updates: Vec<Update>,
    state: Value,
    folder: PathBuf,
    shown: String,
}

impl Recorded {
    fn losses(&self) -> Vec<f64> {
        self.batches.iter().map(|batch| batch.loss).collect()
    }

    fn rows(&self) -> Vec<Vec<u64>> {
        self.batches
            .iter()
            .map(|batch| batch.rows.clone())
            .collect()
    }

    fn rates(&self) -> Vec<f64> {
        self.updates.iter().map(|update| update.rate).collect()
    }

    /// Steps of the log entries that have a value.
    fn steps_with(&self, name: &str) -> Vec<u64> {
        let entries = self.state["log_history"].as_array().expect("a list").iter();
        entries
            .filter(|entry| entry.get(name).is_some())
            .map(|entry| entry["step"].as_u64().expect("a step"))
            .collect()
    }

    fn flos(&self) -> f64 {
        self.state["total_flos"].as_f64().expect("a number")
    }

    /// An argument as it was in effect.
    fn argument(&self, name: &str) -> Value {
        read(&self.folder.join("training_args.json"))[name].clone()
    }
}

fn read(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("JSON")
}

/// A folder for runs, with the recorded BERT without dropout, and its first rows.
pub struct Bench {
    host: Host,
}

impl Bench {
    pub fn new() -> Self {
        let host = Host::new();
        let source = fixture("golden/init_toy");
        copy(&source, &host.path("model"));
        let mut config = read(&source.join("config.json"));
        for name in ["hidden_dropout_prob", "attention_probs_dropout_prob"] {
            config[name] = 0.0.into();
        }
        host.write("model/config.json", &config.to_string());
        let bench = Self { host };
        bench.rows("rows.jsonl", |_, row| row);
        bench
    }

    /// The first 18 rows, changed.
    pub fn rows(&self, name: &str, change: impl Fn(usize, Value) -> Value) -> PathBuf {
        let text = fs::read_to_string(fixture("golden/toy/train.jsonl")).expect("rows");
        let rows = text.lines().take(18).enumerate();
        let rows: Vec<String> = rows
            .map(|(index, row)| change(index, serde_json::from_str(row).expect("JSON")).to_string())
            .collect();
        self.host.write(name, &(rows.join("\n") + "\n"))
    }

    /// A run of four steps of four rows, and what differs.
    pub fn train(&self, arguments: &str) -> Recorded {
        let line = self.line(arguments);
        let mut words = line.split_whitespace();
        let mut command = self.host.command(words.next().expect("a command"));
        command.args(words);
        let shown = self.host.succeeds(command);
        let folder = self.host.path("out");
        let lines = fs::read_to_string(self.host.path("steps.jsonl")).expect("a record");
        let (mut batches, mut updates) = (Vec::new(), Vec::new());
        for line in lines.lines() {
            let line: BTreeMap<String, Value> = serde_json::from_str(line).expect("JSON");
            match line.get("rows").and_then(Value::as_array) {
                Some(rows) => batches.push(Micro {
                    step: line["step"].as_u64().expect("a step"),
                    rows: rows.iter().filter_map(Value::as_u64).collect(),
                    loss: line["loss"].as_f64().unwrap_or(f64::NAN),
                }),
                None => updates.push(Update {
                    gradient_norm: line["gradient_norm"].as_f64(),
                    rate: line["learning_rates"][0].as_f64().expect("a rate"),
                }),
            }
        }
        Recorded {
            batches,
            updates,
            state: read(&folder.join("trainer_state.json")),
            folder,
            shown,
        }
    }

    /// A run that must be refused; what it said.
    pub fn refused(&self, arguments: &str) -> String {
        let ended = self.host.run(&self.line(arguments));
        assert_ne!(ended.code, Some(0), "{}", ended.stderr);
        ended.stderr
    }

    /// Later values win over earlier ones, but files are added up.
    fn line(&self, arguments: &str) -> String {
        let file = |name: &str| match arguments.contains(name) {
            true => String::new(),
            false => format!("{name} rows.jsonl"),
        };
        format!(
            "train --model model {} {} --output_dir out --overwrite_output_dir --record_steps steps.jsonl \
             --per_device_train_batch_size 4 --max_train_samples 16 --max_eval_samples 6 --max_steps 4 \
             --learning_rate 1e-3 --max_length 32 --save_strategy no --use_cpu {arguments}",
            file("--train_file"),
            file("--validation_file")
        )
    }
}

/// Equal within float32's noise.
fn close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}
