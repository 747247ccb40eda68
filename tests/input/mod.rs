//! How rows reach the loop, through the program: sets with names, workers, streams, collators, inputs for metrics.

mod bounded;
mod collators;
mod frozen;
mod memory;
mod sets;
mod streaming;
mod workers;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

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

/// The largest resident size of a command that must succeed, in bytes.
fn peak_memory(mut command: Command) -> u64 {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the program runs");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        // `host` becomes the engine: the process stays the same, its peak begins anew.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes =
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0) << 10);
        if let Some(ended) = child.try_wait().expect("a child") {
            assert!(ended.success(), "{command:?}");
            return peak;
        }
        thread::sleep(Duration::from_millis(2));
    }
}
