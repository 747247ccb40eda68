//! Rows 60 to 63: rows that are read one after the other while they are used.

use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::thread;

use serde_json::Value;

use super::{end, line, peak_memory, read};
use crate::fidelity::data;
use crate::support::{Host, fixture};

const STREAM: &str =
    "train --train_file rows.jsonl --streaming --learning_rate 0.1 --record_steps steps.jsonl";

/// Row numbers of the batches that were trained on.
fn order(host: &Host) -> Vec<Vec<u64>> {
    let text = fs::read_to_string(host.path("steps.jsonl")).expect("the record");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let rows = lines.filter_map(|line| serde_json::from_value(line["rows"].clone()).ok());
    rows.collect()
}

fn weights(host: &Host) -> Vec<u8> {
    fs::read(host.path("out/model.safetensors")).expect("weights")
}

#[test]
fn row_60_rows_come_in_file_order_and_again_when_they_end() {
    let run = |workers: &str| {
        let host = Host::new();
        host.write("rows.jsonl", &data(10));
        let words = format!(
            "{STREAM} --max_steps 4 --per_device_train_batch_size 4 --dataloader_num_workers {workers}"
        );
        host.succeeds(line(&host, &words));
        let state = read(&host.path("out/trainer_state.json"));
        assert_eq!(state["global_step"], 4);
        assert_eq!(
            order(&host),
            [
                vec![0, 1, 2, 3],
                vec![4, 5, 6, 7],
                vec![8, 9],
                vec![0, 1, 2, 3]
            ]
        );
        weights(&host)
    };
    assert!(run("0") == run("2"));
}

#[test]
fn row_61_a_streamed_evaluation_is_that_of_rows_in_memory() {
    for (file, rows) in [("r.jsonl", 64), ("r66.jsonl", 66)] {
        let evaluate = |arguments: &str| {
            let host = Host::new();
            let mut command = host.command("evaluate");
            command
                .arg("--model")
                .arg(fixture("torchscript/regression_1.5_2.5.pt"));
            command
                .arg("--validation_file")
                .arg(fixture("torchscript").join(file));
            command.args(
                "--trust_model_code --output_dir out --use_cpu --report_to none".split_whitespace(),
            );
            command.args(arguments.split_whitespace());
            host.succeeds(command);
            read(&host.path("out/eval_results.json"))
        };
        let (held, streamed) = (evaluate(""), evaluate("--streaming"));
        assert_eq!(held["eval_loss"], streamed["eval_loss"]);
        assert_eq!(streamed["eval_samples"], rows);
    }
}

/// Texts are tokenized, and tokens hidden, while they stream: the draws are those of rows in memory.
#[test]
fn texts_are_prepared_on_the_way() {
    let rows = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/toy.jsonl");
    let evaluate = |arguments: &str| {
        let host = Host::new();
        let mut command = host.command("evaluate");
        command
            .arg("--model")
            .arg(fixture("masked_lm"))
            .arg("--validation_file")
            .arg(&rows);
        command
            .arg("--tokenizer_name")
            .arg(fixture("golden/init_toy"));
        command.args(
            "--task masked-lm --output_dir out --use_cpu --report_to none".split_whitespace(),
        );
        command.args(arguments.split_whitespace());
        host.succeeds(command);
        read(&host.path("out/eval_results.json"))["eval_loss"].clone()
    };
    assert_eq!(evaluate(""), evaluate("--streaming"));
    let helped = "--dataloader_num_workers 2";
    assert_eq!(evaluate(helped), evaluate(&format!("{helped} --streaming")));
}

/// A pipe can be read only once: the second pass yields nothing.
#[test]
fn row_62_what_runs_dry_ends_the_run() {
    let host = Host::new();
    let pipe = host.path("rows.jsonl");
    let made = Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .expect("mkfifo runs");
    assert!(made.success());
    let rows = data(10);
    let writer = thread::spawn(move || {
        let mut pipe = fs::OpenOptions::new()
            .write(true)
            .open(pipe)
            .expect("a reader");
        pipe.write_all(rows.as_bytes()).expect("it reads");
    });
    let words = format!("{STREAM} --max_steps 11 --per_device_train_batch_size 1");
    let shown = host.succeeds(line(&host, &words));
    writer.join().expect("the writer");
    assert!(shown.contains("stopping training at step 10!"), "{shown}");
    assert_eq!(
        read(&host.path("out/trainer_state.json"))["global_step"],
        10
    );
}

/// What cannot be read again is not evaluated as if it were empty.
#[test]
fn a_pipe_is_evaluated_once() {
    let host = Host::new();
    let pipe = host.path("rows.jsonl");
    let made = Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .expect("mkfifo runs");
    assert!(made.success());
    host.write("train.jsonl", &data(16));
    let rows = data(8);
    let writer = thread::spawn(move || {
        let mut pipe = fs::OpenOptions::new()
            .write(true)
            .open(pipe)
            .expect("a reader");
        pipe.write_all(rows.as_bytes()).expect("it reads");
    });
    let words = "train --train_file train.jsonl --validation_file rows.jsonl --streaming --max_steps 4 \
                 --evaluation_strategy steps --eval_steps 2 --save_strategy no";
    let ended = end(line(&host, words));
    writer.join().expect("the writer");
    assert_eq!(ended.code, Some(65), "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("eval: the streamed evaluation set yielded no row"),
        "{}",
        ended.stderr
    );
}

#[test]
fn row_63_a_stream_needs_steps_and_has_its_own_order() {
    let host = Host::new();
    host.write("rows.jsonl", &data(4));
    for (arguments, expected) in [
        (
            "",
            "streaming: needs max_steps, because the number of rows is not known; set it",
        ),
        (
            "--max_steps 3 --group_by_length",
            "group_by_length: does not go with streaming, which reads rows in file order",
        ),
    ] {
        let ended = end(line(&host, &format!("{STREAM} {arguments}")));
        assert_eq!(ended.code, Some(2));
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
    assert!(!host.path("out").exists());
}

#[test]
fn a_stream_goes_on_where_it_was() {
    for arguments in [
        "",
        "--dataloader_num_workers 2 --gradient_accumulation_steps 2",
    ] {
        let host = Host::new();
        host.write("rows.jsonl", &data(18));
        let run = format!("{STREAM} --max_steps 12 --per_device_train_batch_size 4 {arguments}");
        host.succeeds(line(
            &host,
            &format!("{run} --save_strategy steps --save_steps 3"),
        ));
        let whole = weights(&host);
        // In the first pass and in a later one.
        for step in [3, 9] {
            let words =
                format!("{run} --save_strategy no --resume_from_checkpoint out/checkpoint-{step}");
            host.succeeds(line(&host, &words));
            assert!(whole == weights(&host), "{arguments} from {step}");
        }
        let anew = format!(
            "{run} --save_strategy no --resume_from_checkpoint out/checkpoint-3 --ignore_data_skip"
        );
        host.succeeds(line(&host, &anew));
        assert_eq!(order(&host)[0], [0, 1, 2, 3]);
    }
}

#[test]
fn what_is_wrong_with_streamed_rows_is_named() {
    let host = Host::new();
    // In the first rows: before the first step.
    host.write("rows.jsonl", "{\"x\": 1.0}\n");
    let words = format!("{STREAM} --max_steps 3 --per_device_train_batch_size 8");
    let ended = end(line(&host, &words));
    assert_eq!(ended.code, Some(65), "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("no column is an argument of the model"),
        "{}",
        ended.stderr
    );
    // Later: when its turn comes.
    host.write("rows.jsonl", &(data(2000) + "{\"input_x\": \n"));
    let words = format!("{STREAM} --max_steps 300 --overwrite_output_dir --save_strategy no");
    let ended = end(line(&host, &words));
    assert_eq!(ended.code, Some(65), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("rows.jsonl:2001: malformed JSON"),
        "{}",
        ended.stderr
    );
    // Labels without numbers in config.json.
    let mut command = host.command("train");
    command.arg("--model").arg(fixture("golden/init_toy"));
    command
        .arg("--train_file")
        .arg(fixture("golden/toy/train.jsonl"));
    command.args("--streaming --max_steps 1 --output_dir other --use_cpu".split_whitespace());
    let ended = end(command);
    assert_eq!(ended.code, Some(65), "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("streamed rows cannot be searched for their labels beforehand"),
        "{}",
        ended.stderr
    );
}

/// 64 MB of rows, of which two batches are used: their size does not show in the memory of a streamed run.
#[test]
fn memory_does_not_grow_with_the_file() {
    let host = Host::new();
    let filler = "x".repeat(1000);
    let row = |index: usize| {
        format!("{{\"input_x\": {index}.0, \"label\": 1.0, \"text\": \"{filler}\"}}\n")
    };
    let rows: String = (0..64_000).map(row).collect();
    host.write("rows.jsonl", &rows);
    let run = |arguments: &str| {
        let words = format!(
            "train --train_file rows.jsonl --max_steps 2 --save_strategy no --overwrite_output_dir --learning_rate 0 {arguments}"
        );
        peak_memory(line(&host, &words))
    };
    let (held, streamed) = (
        run("--remove_unused_columns no"),
        run("--streaming --remove_unused_columns no"),
    );
    assert!(streamed + (40 << 20) < held, "{streamed} {held}");
}

/// A run that had nothing to train on did not succeed.
#[test]
fn training_data_without_a_batch_are_an_error() {
    let host = Host::new();
    host.write("empty.jsonl", "");
    host.write("one.jsonl", "{\"input_x\": 1.0, \"label\": 1.0}\n");
    for words in [
        "--train_file empty.jsonl",
        "--train_file one.jsonl --dataloader_drop_last",
    ] {
        let ended = end(line(
            &host,
            &format!("train --streaming --max_steps 3 {words}"),
        ));
        assert_ne!(ended.code, Some(0), "{words}: {}", ended.stderr);
        assert!(!host.path("out/model.safetensors").exists(), "{words}");
    }
    assert!(
        end(line(
            &host,
            "train --streaming --max_steps 3 --train_file one.jsonl --dataloader_drop_last"
        ))
        .stderr
        .contains("the training data yielded no batch")
    );
}
