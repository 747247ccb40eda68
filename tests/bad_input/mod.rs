//! What comes from outside and is wrong, through the real program: one clear error, its exit code, nothing half-written.

mod capabilities;
mod config;
mod data;
mod folders;
mod numbers;
mod plugins;
mod resume;
mod script;
mod tokens;
mod weights;

use std::fs;

use serde_json::{Map, Value};

use crate::support::{Ended, Host, copy, fixture};

const USAGE: i32 = 2;
const POLICY: i32 = 64;
const DATA: i32 = 65;
const PLUGIN: i32 = 69;
const IO: i32 = 74;
const NUMERIC: i32 = 77;

/// Words of the toy model's vocabulary, and a class.
const ROWS: &str = r#"{"text": "the soup was cold", "label": 0}
{"text": "her garden felt bright", "label": 1}
{"text": "our guide remained calm", "label": 1}
{"text": "this book seemed quite slow", "label": 0}
{"text": "the match was awful", "label": 0}
{"text": "their website was bright", "label": 1}
{"text": "the new phone felt unfair", "label": 0}
{"text": "that small hotel looked wonderful", "label": 1}
"#;

/// Two steps; later arguments win.
const TRAIN: &str = "train --model model --train_file train.jsonl --output_dir out --max_steps 2 --per_device_train_batch_size 4 \
                     --report_to none --use_cpu";
/// Evaluations in between.
const EVALUATE: &str = "--validation_file valid.jsonl --evaluation_strategy steps --eval_steps 1";

/// What must never be seen.
const FORBIDDEN: &[&str] = &[
    "frame #",
    "Exception raised",
    "INTERNAL ASSERT",
    "stack backtrace",
    "RUST_BACKTRACE",
    "the program panicked",
    "thread 'main'",
    "defect of the program",
];

/// How a command must fail.
#[derive(Clone, Copy, Debug)]
struct Refusal<'a> {
    code: i32,
    /// Part of the line `error: ...`.
    error: &'a str,
    /// Part of a line `hint: ...`; empty: none is asked for.
    hint: &'a str,
    /// What the output folder may hold afterwards.
    left: &'a [&'a str],
}

impl<'a> Refusal<'a> {
    /// Nothing is left.
    const fn new(code: i32, error: &'a str) -> Self {
        Self {
            code,
            error,
            hint: "",
            left: &[],
        }
    }

    const fn hint(self, hint: &'a str) -> Self {
        Self { hint, ..self }
    }

    /// The run had begun: its arguments are left, which do not keep it from being started again.
    const fn begun(self) -> Self {
        Self {
            left: &["run.json"],
            ..self
        }
    }
}

/// The toy model and its data.
pub fn project() -> Host {
    let host = Host::new();
    copy(&fixture("golden/init_toy"), &host.path("model"));
    host.write("train.jsonl", ROWS);
    host.write("valid.jsonl", ROWS);
    host
}

/// Changes `model/config.json`.
fn configure(host: &Host, changes: &Value) {
    let path = host.path("model/config.json");
    let text = fs::read_to_string(&path).expect("the configuration");
    let mut keys: Map<String, Value> = serde_json::from_str(&text).expect("JSON");
    keys.extend(changes.as_object().expect("an object").clone());
    fs::write(path, Value::Object(keys).to_string()).expect("written");
}

/// Runs a command that must succeed, and gives what it printed.
fn succeeds(host: &Host, line: &str) -> String {
    let shown = host.succeeds(host.line(line));
    for word in FORBIDDEN {
        assert!(!shown.contains(word), "{word} in\n{shown}");
    }
    shown
}

/// Names in the output folder, hidden ones too.
fn left(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.path("out")).into_iter().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

/// Runs a command that must fail in this way.
fn refused(host: &Host, line: &str, refusal: Refusal<'_>) {
    let ended = host.run(line);
    let shown = format!("{line}\n{}{}", ended.stderr, ended.stdout);
    let errors: Vec<&str> = lines(&ended, "error: ");
    assert_eq!(errors.len(), 1, "one error: {shown}");
    assert!(
        errors[0].contains(refusal.error),
        "{:?} is not in: {shown}",
        refusal.error
    );
    let hints = lines(&ended, "hint: ");
    assert!(
        refusal.hint.is_empty() || hints.iter().any(|hint| hint.contains(refusal.hint)),
        "{:?} is no hint of: {shown}",
        refusal.hint
    );
    assert_eq!(ended.code, Some(refusal.code), "{shown}");
    for word in FORBIDDEN {
        assert!(!shown.contains(word), "{word} in {shown}");
    }
    let printable = |character: char| character == '\n' || !character.is_control();
    assert!(shown.chars().all(printable), "{shown:?}");
    assert_eq!(left(host), refusal.left, "what is left: {shown}");
}

fn lines<'a>(ended: &'a Ended, prefix: &str) -> Vec<&'a str> {
    ended
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix(prefix))
        .collect()
}
