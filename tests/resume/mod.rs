//! Stopping and going on: at every step, by a kill at any instant, by signals, with a full disk, in a used folder.

mod every_step;
mod kill;
mod signals;
mod storage;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

use crate::support::{Host, fixture};

/// A small BERT with dropout: 15 steps over 3 epochs of 11 batches in groups of 2, with evaluations in between.
pub fn small_run(host: &Host, output: &Path, arguments: &str) -> Command {
    let golden = fixture("golden");
    let mut command = host.command("train");
    command.arg("--model").arg(golden.join("init_toy"));
    command
        .arg("--train_file")
        .arg(golden.join("toy/train.jsonl"));
    command
        .arg("--validation_file")
        .arg(golden.join("toy/validation.jsonl"));
    command.arg("--output_dir").arg(output);
    let common = "--max_train_samples 44 --max_eval_samples 16 --max_length 32 --per_device_train_batch_size 4 \
                  --gradient_accumulation_steps 2 --num_train_epochs 3 --learning_rate 1e-3 --logging_steps 2 \
                  --evaluation_strategy steps --eval_steps 3 --use_cpu --report_to none";
    command
        .args(common.split_whitespace())
        .args(arguments.split_whitespace());
    command
}

/// What a run leaves: bytes of the final weights, generator states of the last checkpoint, log history without times.
#[derive(Debug, PartialEq)]
pub struct Remains {
    /// Digests, so that a failure can be read.
    weights: String,
    generators: String,
    history: Vec<Map<String, Value>>,
}

/// Times differ, and `train_loss` is the mean over the steps of a call (deliberate difference).
pub fn remains(output: &Path, last_step: u64) -> Remains {
    let read =
        |path: &Path| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digest = |path: &Path| blake3::hash(&read(path)).to_hex().to_string();
    let state: Value =
        serde_json::from_slice(&read(&output.join("trainer_state.json"))).expect("JSON");
    let is_kept = |name: &str| {
        !(name.ends_with("_runtime") || name.ends_with("_per_second") || name == "train_loss")
    };
    let entry = |entry: &Value| {
        let fields = entry
            .as_object()
            .expect("an entry")
            .iter()
            .filter(|(name, _)| is_kept(name));
        fields
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    Remains {
        weights: digest(&output.join("model.safetensors")),
        generators: digest(
            &output
                .join(format!("checkpoint-{last_step}"))
                .join("rng_state.safetensors"),
        ),
        history: state["log_history"]
            .as_array()
            .expect("a list")
            .iter()
            .map(entry)
            .collect(),
    }
}

/// Steps of the complete checkpoints of a folder, ascending.
pub fn checkpoints(output: &Path) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(output) else {
        return Vec::new();
    };
    let step = |name: &str| {
        name.strip_prefix("checkpoint-")
            .and_then(|step| step.parse().ok())
    };
    let mut steps: Vec<u64> = entries
        .flatten()
        .filter_map(|entry| step(&entry.file_name().to_string_lossy()))
        .collect();
    steps.sort_unstable();
    steps
}
