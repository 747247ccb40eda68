//! `past_index`: an output of one batch is an input of the next, and forgotten at each epoch and evaluation.

use std::fs;

use super::{end, read};
use crate::support::{Host, fixture};

/// `host <words>` with the module that adds the last x of the batch before to y; a and b stay 0.
fn memory(host: &Host, words: &str) -> std::process::Command {
    let mut words = words.split_whitespace();
    let mut command = host.command(words.next().expect("a subcommand"));
    command
        .arg("--model")
        .arg(fixture("torchscript/memory.pt"))
        .args("--trust_model_code --use_cpu --report_to none --output_dir out".split_whitespace())
        .args(words);
    command
}

fn rows(host: &Host, x: &[f64]) {
    let text: String = x
        .iter()
        .map(|x| format!("{{\"input_x\": {x:?}, \"label\": 0.0}}\n"))
        .collect();
    host.write("rows.jsonl", &text);
}

#[test]
fn an_evaluation_remembers_the_batch_before() {
    let host = Host::new();
    rows(&host, &[1.0, 2.0, 3.0]);
    let evaluate = "evaluate --validation_file rows.jsonl --per_device_eval_batch_size 1";
    let loss = |arguments: &str| {
        host.succeeds(memory(&host, &format!("{evaluate} {arguments}")));
        read(&host.path("out/eval_results.json"))["eval_loss"]
            .as_f64()
            .expect("a loss")
    };
    assert_eq!(loss(""), 0.0);
    // (0 + 1 + 4) / 3: the first batch has no memory.
    assert!((loss("--past_index 2") - 5.0 / 3.0).abs() < 1e-6);
    let ended = end(memory(&host, &format!("{evaluate} --past_index 3")));
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("past_index is 3, counted from the loss as 0, but the model returns only logits, output_1"),
        "{}",
        ended.stderr
    );
}

#[test]
fn training_forgets_at_each_epoch_and_a_checkpoint_remembers() {
    let host = Host::new();
    rows(&host, &[2.0, 2.0, 2.0]);
    let train = "train --train_file rows.jsonl --past_index 2 --per_device_train_batch_size 1 --num_train_epochs 2 \
                 --learning_rate 0 --logging_steps 1 --save_strategy steps --save_steps 1";
    let losses = |host: &Host| -> Vec<f64> {
        let state = read(&host.path("out/trainer_state.json"));
        let entries = state["log_history"].as_array().expect("entries");
        entries
            .iter()
            .filter_map(|entry| entry["loss"].as_f64())
            .collect()
    };
    host.succeeds(memory(&host, train));
    assert_eq!(losses(&host), [0.0, 4.0, 4.0, 0.0, 4.0, 4.0]);
    for step in 3..=6 {
        fs::remove_dir_all(host.path(&format!("out/checkpoint-{step}"))).expect("a checkpoint");
    }
    host.succeeds(memory(
        &host,
        &format!("{train} --resume_from_checkpoint true"),
    ));
    assert_eq!(losses(&host), [0.0, 4.0, 4.0, 0.0, 4.0, 4.0]);
}

#[test]
fn what_cannot_be_fed_back_is_refused() {
    let host = Host::new();
    rows(&host, &[1.0]);
    let evaluate = "evaluate --validation_file rows.jsonl --past_index";
    let ended = end(memory(&host, &format!("{evaluate} 0")));
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("past_index: 0 is the loss"),
        "{}",
        ended.stderr
    );
    let ended = end(super::line(&host, &format!("{evaluate} 2")));
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains(
            "past_index feeds an output back as `mems`, but forward takes only input_x, labels"
        ),
        "{}",
        ended.stderr
    );
}
