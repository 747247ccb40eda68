//! `dataloader_num_workers`: the same run with and without, also when it goes on from a checkpoint.

use std::fs;

use super::{end, line, read};
use crate::fidelity::{data, parameters};
use crate::support::Host;

const TRAIN: &str = "train --train_file train.jsonl --validation_file train.jsonl --evaluation_strategy steps --eval_steps 5 \
                     --logging_steps 1 --num_train_epochs 2 --learning_rate 0.1";

/// Log entries without what a clock says.
fn log(host: &Host) -> Vec<serde_json::Value> {
    let state = read(&host.path("out/trainer_state.json"));
    let mut entries = state["log_history"].as_array().expect("entries").clone();
    for entry in &mut entries {
        let values = entry.as_object_mut().expect("an entry");
        values.retain(|name, _| !name.contains("runtime") && !name.contains("per_second"));
    }
    entries
}

#[test]
fn a_run_with_workers_is_the_run_without() {
    let run = |arguments: &str| {
        let host = Host::new();
        host.write("train.jsonl", &data(60));
        host.succeeds(line(&host, &format!("{TRAIN} {arguments}")));
        host
    };
    let alone = run("");
    let helped = run("--dataloader_num_workers 3 --save_strategy steps --save_steps 6");
    assert_eq!(log(&alone), log(&helped));
    let weights = |host: &Host| fs::read(host.path("out/model.safetensors")).expect("weights");
    assert_eq!(weights(&alone), weights(&helped));
    // From the middle of the first epoch, with another number of workers.
    fs::remove_dir_all(helped.path("out/checkpoint-12")).expect("a checkpoint");
    let expected = parameters(&helped.path("out"));
    helped.succeeds(line(
        &helped,
        &format!("{TRAIN} --dataloader_num_workers 2 --save_strategy no --resume_from_checkpoint out/checkpoint-6"),
    ));
    assert_eq!(parameters(&helped.path("out")), expected);
    assert_eq!(weights(&alone), weights(&helped));
}

#[test]
fn a_bad_row_is_named_from_a_worker_and_bad_numbers_are_refused() {
    let host = Host::new();
    let mut rows = data(20);
    rows.push_str("{\"input_x\": [1.0, 2.0], \"label\": 1.0}\n");
    host.write("train.jsonl", &rows);
    for workers in ["0", "2"] {
        let words = format!("train --train_file train.jsonl --dataloader_num_workers {workers}");
        let ended = end(line(&host, &words));
        assert_eq!(ended.code, Some(65), "{}", ended.stderr);
        assert!(ended.stderr.contains("train.jsonl:21"), "{}", ended.stderr);
    }
    for workers in ["-1", "1000"] {
        let words = format!("train --train_file train.jsonl --dataloader_num_workers {workers}");
        let ended = end(line(&host, &words));
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        let expected = format!(
            "dataloader_num_workers: {workers} is out of range; give a number from 0 to 256"
        );
        assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    }
}
