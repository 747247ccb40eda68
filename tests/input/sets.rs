//! Row 59: several evaluation sets, each with its metrics, its log entry and its evaluation event.

use std::fs;

use super::{end, line, read};
use crate::fidelity::data;
use crate::support::Host;

const NAMED: &str = "--validation_file near=near.jsonl --validation_file far=far.jsonl --validation_file near=more.jsonl";

/// The rows of D, and sets whose labels are shifted by so much that their losses differ.
fn project() -> Host {
    let host = Host::new();
    host.write("train.jsonl", &data(64));
    host.write("near.jsonl", &data(6));
    host.write("more.jsonl", &data(4));
    host.write("far.jsonl", "{\"input_x\": 0.0, \"label\": 100.0}\n");
    host
}

#[test]
fn row_59_every_set_has_its_own_metrics() {
    let host = project();
    host.succeeds(line(
        &host,
        &format!("train --train_file train.jsonl {NAMED} --num_train_epochs 2 --evaluation_strategy epoch --save_strategy epoch \
                  --load_best_model_at_end --metric_for_best_model far_loss --learning_rate 0.1"),
    ));
    let state = read(&host.path("out/trainer_state.json"));
    let history = state["log_history"].as_array().expect("entries");
    let steps = |name: &str| -> Vec<u64> {
        let has = history.iter().filter(|entry| entry.get(name).is_some());
        has.filter_map(|entry| entry["step"].as_u64()).collect()
    };
    // Two epochs, and once more after training; near comes first each time.
    assert_eq!(steps("eval_near_loss"), [8, 16, 16]);
    assert_eq!(steps("eval_far_loss"), [8, 16, 16]);
    assert!(steps("eval_loss").is_empty());
    let names = ["eval_near_loss", "eval_far_loss"];
    let order: Vec<&str> = history
        .iter()
        .filter_map(|entry| names.into_iter().find(|name| entry.get(*name).is_some()))
        .collect();
    assert_eq!(order, [names, names, names].concat());
    // The set that was named decides which checkpoint is best: its labels are larger, so later is better.
    assert_eq!(
        state["best_metric"],
        history_value(history, "eval_far_loss", 16)
    );
    assert!(
        state["best_model_checkpoint"]
            .as_str()
            .expect("a folder")
            .ends_with("checkpoint-16")
    );
    let results = read(&host.path("out/eval_results.json"));
    assert_eq!(
        (&results["eval_near_samples"], &results["eval_far_samples"]),
        (&10.into(), &1.into())
    );
}

fn history_value(history: &[serde_json::Value], name: &str, step: u64) -> serde_json::Value {
    let found = history
        .iter()
        .find(|entry| entry["step"] == step && entry.get(name).is_some());
    found.expect("an entry")[name].clone()
}

#[test]
fn evaluate_takes_sets_with_names_and_one_set_keeps_the_plain_names() {
    let host = project();
    host.succeeds(line(&host, &format!("evaluate {NAMED}")));
    let named = read(&host.path("out/eval_results.json"));
    // At a = b = 0 the loss is the mean of the squared labels.
    assert_eq!(named["eval_far_loss"], 10_000.0);
    assert_eq!(named["eval_near_samples"], 10);
    fs::remove_file(host.path("out/all_results.json")).expect("a file");
    host.succeeds(line(
        &host,
        "evaluate --validation_file ./near.jsonl more.jsonl",
    ));
    let plain = read(&host.path("out/eval_results.json"));
    assert_eq!(plain["eval_loss"], named["eval_near_loss"]);
    assert_eq!(plain["eval_samples"], 10);
    assert!(plain.get("eval_near_loss").is_none());
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let host = project();
    let train = "train --train_file train.jsonl";
    for (words, expected) in [
        (
            format!("{train} {NAMED} --validation_file more.jsonl"),
            "validation_file: some files have a name and others do not; give all of them a name (NAME=FILE), or none",
        ),
        (
            format!("{train} --validation_file =near.jsonl"),
            "validation_file: `` is not a name for a set; use letters, digits",
        ),
        (
            format!("{train} --validation_file near=gone.jsonl"),
            "validation_file: `gone.jsonl` does not exist; check the path",
        ),
        (
            format!(
                "{train} {NAMED} --evaluation_strategy epoch --save_strategy epoch --load_best_model_at_end"
            ),
            "metric_for_best_model: loss is reported by no set that has a name; set metric_for_best_model to the metric of one of them, as near_loss",
        ),
    ] {
        let ended = end(line(&host, &words));
        assert_eq!(ended.code, Some(2), "{words}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{words}: {}", ended.stderr);
    }
    assert!(!host.path("out").exists(), "something was written");
    // A metric of a set that does not exist is known only with the data, but before the first step.
    let ended = end(line(
        &host,
        &format!("{train} {NAMED} --evaluation_strategy epoch --metric_for_best_model other_loss"),
    ));
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("no metric \"other_loss\", only eval_near_loss"),
        "{}",
        ended.stderr
    );
}
