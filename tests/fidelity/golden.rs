//! The recorded BERT runs.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::support::{Host, copy, fixture};

/// How far a run may be from the recorded one.
#[derive(Clone, Copy)]
struct Tolerance {
    /// Losses and weights.
    value: f64,
    /// Logged losses, which are rounded to 4 digits.
    logged: f64,
    norm: f64,
}

const FLOAT32: Tolerance = Tolerance {
    value: 2e-6,
    logged: 0.0,
    norm: 1e-5,
};
/// Products have 8 bits: sums in another order may round to the neighbour.
const BFLOAT16: Tolerance = Tolerance {
    value: 2e-3,
    logged: 2e-3,
    norm: 1e-2,
};

/// A recorded run and what it sets.
struct Run {
    name: &'static str,
    arguments: &'static [&'static str],
    dropout: f64,
    /// A tensor left out of the comparison.
    without: Option<&'static str>,
    tolerance: Tolerance,
}

const fn run(name: &'static str, arguments: &'static [&'static str]) -> Run {
    Run {
        name,
        arguments,
        dropout: 0.0,
        without: None,
        tolerance: FLOAT32,
    }
}

fn golden(name: &str) -> PathBuf {
    fixture("golden").join(name)
}

fn json_file(path: &Path) -> Value {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The recorded runs set both dropout probabilities in the configuration of their model.
fn model_with_dropout(folder: &Path, dropout: f64) -> PathBuf {
    let model = folder.join("model");
    copy(&golden("init_toy"), &model);
    let mut config = json_file(&model.join("config.json"));
    config["hidden_dropout_prob"] = json!(dropout);
    config["attention_probs_dropout_prob"] = json!(dropout);
    fs::write(model.join("config.json"), config.to_string()).expect("a new configuration");
    model
}

fn train(host: &Host, run: &Run, resume: Option<&Path>) -> PathBuf {
    let output = host.path("out");
    let model = model_with_dropout(host.folder(), run.dropout);
    let toy = golden("toy");
    let mut command = host.command("train");
    command.arg("--model").arg(model);
    command
        .arg("--train_file")
        .arg(toy.join("train.jsonl"))
        .arg("--validation_file")
        .arg(toy.join("validation.jsonl"));
    command
        .arg("--output_dir")
        .arg(&output)
        .arg("--record_steps")
        .arg(host.path("steps.jsonl"));
    let common = "--max_train_samples 400 --max_eval_samples 200 --max_length 64 --per_device_train_batch_size 16 \
                  --per_device_eval_batch_size 32 --learning_rate 1e-3 --logging_steps 1 --evaluation_strategy steps \
                  --eval_steps 20 --use_cpu --report_to none";
    command.args(common.split_whitespace()).args(run.arguments);
    if !run.arguments.contains(&"--num_train_epochs") {
        command.args(["--num_train_epochs", "1"]);
    }
    if !run.arguments.contains(&"--save_strategy") {
        command.args(["--save_strategy", "no"]);
    }
    if let Some(folder) = resume {
        command.arg("--resume_from_checkpoint").arg(folder);
    }
    host.succeeds(command);
    output
}

/// What may differ: times, and the step intervals that a recorded run left at their defaults.
fn compare_logs(run: &Run, ours: &Value, recorded: &Value, steps_of_call: f64) {
    let (name, tolerance) = (run.name, run.tolerance);
    let (ours, recorded) = (&ours["log_history"], &recorded["log_history"]);
    let (ours, recorded) = (
        ours.as_array().expect("a list"),
        recorded.as_array().expect("a list"),
    );
    assert_eq!(
        ours.len(),
        recorded.len(),
        "{name}: entries of the log history"
    );
    for (ours, recorded) in ours.iter().zip(recorded) {
        for (key, expected) in recorded.as_object().expect("an entry") {
            let found = &ours[key];
            let place = format!(
                "{name}: {key} at step {}: {found} instead of {expected}",
                recorded["step"]
            );
            let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{place}"));
            match key.as_str() {
                key if key.ends_with("_runtime") || key.ends_with("_per_second") => {}
                // A resumed call reports the mean over its own steps (deliberate difference).
                "train_loss" => {
                    let expected = number(expected) * recorded["step"].as_f64().expect("a step")
                        / steps_of_call;
                    assert!(
                        (number(found) - expected).abs() < tolerance.value,
                        "{place}"
                    );
                }
                "eval_loss" => assert!(
                    (number(found) - number(expected)).abs() < tolerance.value,
                    "{place}"
                ),
                "loss" => assert!(
                    (number(found) - number(expected)).abs() <= tolerance.logged,
                    "{place}"
                ),
                _ => assert_eq!(number(found), number(expected), "{place}"),
            }
        }
        assert_eq!(
            ours.as_object().map(serde_json::Map::len),
            recorded.as_object().map(serde_json::Map::len),
            "{name}"
        );
    }
}

/// Rows of each batch, and raw losses, norms and rates.
#[expect(clippy::print_stdout, reason = "says where bits are equal")]
fn compare_steps(run: &Run, steps: &Path) {
    let (name, tolerance) = (run.name, run.tolerance);
    let text = fs::read_to_string(steps).expect("the record of steps");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line"))
        .collect();
    let batches: Vec<&Value> = lines
        .iter()
        .filter(|line| line["rows"].is_array())
        .collect();
    let updates: Vec<&Value> = lines
        .iter()
        .filter(|line| line["learning_rates"].is_array())
        .collect();
    let order = json_file(&golden(name).join("order.json"))["order"].clone();
    let ours: Vec<Value> = batches.iter().map(|batch| batch["rows"].clone()).collect();
    // The recorder saw the batch that the loader had fetched ahead; the loop may not have reached it.
    let order = order.as_array().expect("an order");
    assert_eq!(ours[..], order[..ours.len()], "{name}: order of the data");
    let raw = json_file(&golden(name).join("log.json"))["raw"].clone();
    let close = |what: &str, ours: &[f64], tolerance: f64| {
        let recorded: Vec<f64> = raw[what]
            .as_array()
            .expect("a list")
            .iter()
            .map(number_or_text)
            .collect();
        assert_eq!(ours.len(), recorded.len(), "{name}: {what}");
        let equal = ours.iter().zip(&recorded).filter(|(a, b)| a == b).count();
        println!("{name}: {equal} of {} {what} equal", ours.len());
        for (index, (ours, recorded)) in ours.iter().zip(&recorded).enumerate() {
            assert!(
                (ours - recorded).abs() <= tolerance,
                "{name}: {what} {index}: {ours} instead of {recorded}"
            );
        }
    };
    let losses: Vec<f64> = batches
        .iter()
        .map(|batch| batch["loss"].as_f64().expect("a loss"))
        .collect();
    let rates: Vec<f64> = updates
        .iter()
        .map(|update| update["learning_rates"][0].as_f64().expect("a rate"))
        .collect();
    let norms: Vec<f64> = updates
        .iter()
        .map(|update| update["gradient_norm"].as_f64().expect("a norm"))
        .collect();
    close("micro_loss", &losses, tolerance.value);
    close("lr_used", &rates, 0.0);
    close("grad_norm", &norms, tolerance.norm);
}

/// The recorder wrote full-precision numbers as text.
fn number_or_text(value: &Value) -> f64 {
    value
        .as_f64()
        .or_else(|| value.as_str()?.parse().ok())
        .unwrap_or_else(|| panic!("{value} is no number"))
}

fn tensors(path: &Path) -> Vec<(String, Tensor)> {
    host::checkpoint::load::read_tensors(path)
        .unwrap_or_else(|error| panic!("{error:#}"))
        .tensors
}

#[expect(clippy::print_stdout, reason = "says where bits are equal")]
fn compare_weights(run: &Run, output: &Path) {
    let ours = tensors(&output.join("model.safetensors"));
    let recorded = tensors(&golden(run.name).join("model.safetensors"));
    assert_eq!(
        ours.len(),
        recorded.len(),
        "{}: number of tensors",
        run.name
    );
    let mut equal = 0;
    for (name, expected) in recorded {
        let found = &ours
            .iter()
            .find(|(key, _)| *key == name)
            .unwrap_or_else(|| panic!("{name} is missing"))
            .1;
        if run.without.is_some_and(|part| name.contains(part)) {
            continue;
        }
        let difference = (found - &expected)
            .abs()
            .max()
            .to_kind(Kind::Double)
            .double_value(&[]);
        assert!(
            difference <= run.tolerance.value,
            "{}: {name} differs by {difference}",
            run.name
        );
        equal += usize::from(difference == 0.0);
    }
    // Shown with `--nocapture`: where bits are equal.
    println!(
        "{}: {equal} of {} tensors equal to the last bit",
        run.name,
        ours.len()
    );
}

fn check(run: &Run) {
    let host = Host::new();
    let output = train(&host, run, None);
    let recorded = json_file(&golden(run.name).join("trainer_state.json"));
    let ours = json_file(&output.join("trainer_state.json"));
    compare_logs(
        run,
        &ours,
        &recorded,
        recorded["global_step"].as_f64().expect("a step"),
    );
    compare_steps(run, &host.path("steps.jsonl"));
    compare_weights(run, &output);
}

const BASE: Run = run("base", &["--save_strategy", "steps", "--save_steps", "10"]);

#[test]
fn base() {
    check(&BASE);
}

#[test]
fn drop() {
    check(&Run {
        dropout: 0.1,
        ..run("drop", &[])
    });
}

#[test]
fn drop_ep2() {
    check(&Run {
        dropout: 0.1,
        ..run("drop_ep2", &["--num_train_epochs", "2"])
    });
}

#[test]
fn ga3() {
    check(&run("ga3", &["--gradient_accumulation_steps", "3"]));
}

#[test]
fn cosine_warmup() {
    check(&run(
        "cosine_warmup",
        &["--lr_scheduler_type", "cosine", "--warmup_ratio", "0.1"],
    ));
}

#[test]
fn adafactor() {
    // The gradient of the key bias is zero in exact arithmetic, so its normalised update is noise.
    check(&Run {
        without: Some("attention.self.key.bias"),
        ..run("adafactor", &["--optim", "adafactor"])
    });
}

#[test]
fn gbl() {
    check(&run("gbl", &["--group_by_length"]));
}

#[test]
fn bf16() {
    check(&Run {
        tolerance: BFLOAT16,
        ..run("bf16", &["--bf16"])
    });
}

#[test]
fn clip() {
    check(&run("clip", &["--max_grad_norm", "0.05"]));
}

fn check_resumed(checkpoint: &Path) {
    let host = Host::new();
    let run = run(
        "resume10",
        &["--save_strategy", "steps", "--save_steps", "10"],
    );
    let output = train(&host, &run, Some(checkpoint));
    let recorded = json_file(&golden(run.name).join("trainer_state.json"));
    let ours = json_file(&output.join("trainer_state.json"));
    compare_logs(&run, &ours, &recorded, 15.0);
    compare_steps(&run, &host.path("steps.jsonl"));
    compare_weights(&run, &output);
}

#[test]
fn resume10_from_our_checkpoint() {
    let host = Host::new();
    let output = train(&host, &BASE, None);
    check_resumed(&output.join("checkpoint-10"));
}

#[test]
fn resume10_from_hugging_faces_checkpoint() {
    check_resumed(&golden("checkpoint_sample"));
}
