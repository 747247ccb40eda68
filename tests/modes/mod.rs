//! Arguments that change how a run computes or what it measures, through the real program: half precision, recomputation,
//! determinism, the watch for numbers that are not finite, memory and tokens.

mod compiled;
mod memory;
mod numbers;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Ended, Host, ended, fixture};

/// Steps of the toy model on its data; later arguments win.
const TOY: &str = "--max_steps 4 --per_device_train_batch_size 8 --learning_rate 1e-3 --logging_steps 1 --save_strategy no \
                   --max_eval_samples 64 --report_to none --use_cpu";

/// `host train` of the recorded toy model, with its dropout of 0.1.
fn train(host: &Host, output: &str, line: &str) -> Command {
    train_on(host, &fixture("golden/toy/train.jsonl"), (output, line))
}

/// [`train`] on other rows.
fn train_on(host: &Host, rows: &Path, (output, line): (&str, &str)) -> Command {
    let mut command = host.command("train");
    command
        .arg("--model")
        .arg(fixture("golden/init_toy"))
        .arg("--train_file")
        .arg(rows)
        .arg("--validation_file")
        .arg(fixture("golden/toy/validation.jsonl"))
        .args(["--output_dir", output, "--record_steps"])
        .arg(format!("{output}.jsonl"))
        .args(TOY.split_whitespace())
        .args(line.split_whitespace());
    command
}

/// `host train` of a TorchScript regression.
fn train_script(host: &Host, output: &str, (module, line): (&str, &str)) -> Command {
    let folder = fixture("torchscript");
    let mut command = host.command("train");
    command
        .arg("--trust_model_code")
        .arg("--model")
        .arg(folder.join(module))
        .arg("--train_file")
        .arg(folder.join("r.jsonl"))
        .args([
            "--output_dir",
            output,
            "--learning_rate",
            "0.1",
            "--save_strategy",
            "no",
        ])
        .args(line.split_whitespace());
    command
}

fn run(mut command: Command) -> Ended {
    ended(&command.output().expect("the program runs"))
}

fn json(path: &Path) -> Value {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

fn results(host: &Host, output: &str) -> Value {
    json(&host.path(output).join("all_results.json"))
}

fn weights(host: &Host, output: &str) -> Vec<u8> {
    fs::read(host.path(output).join("model.safetensors")).expect("the weights")
}

fn steps(host: &Host, output: &str) -> String {
    fs::read_to_string(host.path(&format!("{output}.jsonl"))).expect("the record")
}
