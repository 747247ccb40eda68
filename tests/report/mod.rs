//! Reporters as plugins: what arrives at the other side, and what happens when there is none.

mod delivery;
pub mod mlflow;
mod tensorboard;

use std::path::Path;

use serde_json::{Value, json};

use crate::bad_input::project;
use crate::plugin::official;
use crate::support::{Ended, Host, ended};

/// Three steps with a log entry and an evaluation each, and a reporter with all that it asks for.
fn reporting(plugin: &str, config: &Value, grants: &[&str]) -> Host {
    let host = project();
    let path = official(plugin);
    let run = json!({
        "model": "model",
        "train_file": ["train.jsonl"],
        "validation_file": ["valid.jsonl"],
        "output_dir": "out",
        "run_name": "a run",
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "evaluation_strategy": "steps",
        "eval_steps": 1,
        "use_cpu": true,
        "plugins": [{"path": path, "config": config, "grant": grants}],
    });
    let text = toml::to_string(&run).expect("TOML");
    host.write("run.toml", &text);
    host
}

fn train(host: &Host, more: &[&str]) -> Ended {
    let mut command = host.command("train");
    command.arg("run.toml").args(more);
    ended(&command.output().expect("the program runs"))
}

/// `step`, name and value of each logged number.
fn logged(host: &Host) -> Vec<(u64, String, f64)> {
    let state = host.json("out/trainer_state.json");
    let mut logged = Vec::new();
    for entry in state["log_history"].as_array().expect("a history") {
        let step = entry["step"].as_u64().expect("a step");
        for (name, value) in entry.as_object().expect("an entry") {
            if name != "step" {
                logged.push((step, name.clone(), value.as_f64().expect("a number")));
            }
        }
    }
    sorted(logged)
}

/// Within a step, the files of a run and the wire have their own orders.
fn sorted<T: PartialOrd>(mut values: Vec<(u64, String, T)>) -> Vec<(u64, String, T)> {
    values.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    values
}

fn exists(host: &Host, name: &str) -> bool {
    Path::exists(&host.path(name))
}
