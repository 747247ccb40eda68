//! The output folder and other places to write, and arguments that cannot be.

use std::fs;

use super::{IO, Refusal, TRAIN, USAGE, left, lines, project, refused};
use crate::support::{Requirement, ended, in_namespaces, requires};

#[test]
fn an_output_folder_that_is_a_file_is_refused() {
    let host = project();
    host.write("taken", "x");
    refused(
        &host,
        &format!("{TRAIN} --output_dir taken"),
        Refusal::new(
            USAGE,
            "output_dir: `taken` is a file; choose another folder",
        ),
    );
    refused(
        &host,
        &format!("{TRAIN} --output_dir taken/out"),
        Refusal::new(USAGE, "output_dir: `taken/out` cannot be made, because"),
    );
    assert_eq!(
        fs::read_to_string(host.path("taken")).expect("the file"),
        "x"
    );
}

/// Root is stopped by a read-only mount only.
#[test]
fn an_output_folder_that_became_read_only_is_refused() {
    if !requires(Requirement::Namespaces) {
        return;
    }
    let host = project();
    fs::create_dir(host.path("out")).expect("a folder");
    let script = "mount --bind out out && mount -o remount,bind,ro out && exec \"$@\"";
    let mut command = in_namespaces(script, &[], &host.line(TRAIN));
    let ended = ended(&command.output().expect("the program runs"));
    let errors = lines(&ended, "error: ");
    assert_eq!(errors.len(), 1, "{}", ended.stderr);
    assert!(
        errors[0].contains("Read-only file system"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.code, Some(USAGE), "{}", ended.stderr);
    assert!(left(&host).is_empty());
}

/// Folders stand where files of the run belong: nothing is written half, and what is in the way is named.
#[test]
fn what_is_in_the_way_is_named() {
    for (name, error, code) in [
        (".lock", "cannot write into the output folder", IO),
        ("run.json", "run.json: Is a directory", IO),
    ] {
        let host = project();
        fs::create_dir_all(host.path("out").join(name)).expect("a folder");
        let refusal = Refusal {
            left: &[name],
            ..Refusal::new(code, error)
        };
        refused(&host, &format!("{TRAIN} --overwrite_output_dir"), refusal);
    }
    let host = project();
    host.write("out/checkpoint-1", "x");
    let refusal = Refusal {
        left: &["checkpoint-1", "run.json"],
        ..Refusal::new(
            IO,
            "checkpoint-1 is not a folder; no checkpoint is written there",
        )
        .hint("move it away")
    };
    refused(
        &host,
        &format!("{TRAIN} --overwrite_output_dir --save_steps 1"),
        refusal,
    );
    let host = project();
    fs::create_dir_all(host.path("out/predictions.jsonl")).expect("a folder");
    let refusal = Refusal {
        left: &["predictions.jsonl"],
        ..Refusal::new(IO, "predictions.jsonl: Is a directory")
    };
    refused(
        &host,
        "predict --model model --test_file valid.jsonl --output_dir out --overwrite_output_dir",
        refusal,
    );
    let host = project();
    refused(
        &host,
        &format!("{TRAIN} --record_steps no/such/steps.jsonl"),
        Refusal::new(IO, "steps.jsonl: No such file"),
    );
}

#[test]
fn wrong_arguments_are_told_before_anything_is_read() {
    let host = project();
    refused(
        &host,
        &format!("{TRAIN} --lerning_rate 1"),
        Refusal::new(
            USAGE,
            "unknown argument `--lerning_rate`; did you mean `--learning_rate`?",
        ),
    );
    let ended = host.run(&format!(
        "{TRAIN} --lr_scheduler_type reduce_lr_on_plateau --early_stopping_threshold 1 --load_best_model_at_end"
    ));
    assert_eq!(ended.code, Some(USAGE));
    for part in [
        "error: 3 problems:",
        "  load_best_model_at_end: needs the same save_strategy and evaluation_strategy",
        "  lr_scheduler_type: reduce_lr_on_plateau needs evaluations during training",
        "  early_stopping_threshold: has no effect without early_stopping_patience",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    assert!(!host.path("out").exists());
}
