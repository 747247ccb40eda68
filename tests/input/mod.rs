//! How rows reach the loop, through the program: sets with names, workers, streams, collators, inputs for metrics.

mod sets;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Ended, Host, fixture};

/// A JSON file of a run.
fn read(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("JSON")
}

/// `host <words>` with the recorded line y = ax + b as its model.
fn line(host: &Host, words: &str) -> Command {
    let mut words = words.split_whitespace();
    let mut command = host.command(words.next().expect("a subcommand"));
    command
        .arg("--model")
        .arg(fixture("torchscript/regression.pt"))
        .args("--trust_model_code --use_cpu --report_to none --output_dir out".split_whitespace())
        .args(words);
    command
}

/// How a command ended that need not succeed.
fn end(mut command: Command) -> Ended {
    crate::support::ended(&command.output().expect("the program runs"))
}
