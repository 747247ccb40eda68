//! Checkpoints to resume from: missing, damaged, of another model, of other data.

use std::fs;
use std::path::Path;

use super::{DATA, ROWS, Refusal, TRAIN, USAGE, project, refused, succeeds};
use crate::support::{Host, copy};

const RESUMED: &str = "--max_steps 4 --resume_from_checkpoint start/checkpoint-1";

/// A project with a checkpoint of its own.
fn started() -> Host {
    let host = project();
    succeeds(&host, &format!("{TRAIN} --save_steps 1 --output_dir start"));
    host
}

/// Changes the checkpoint and resumes from it.
fn damaged(host: &Host, change: impl FnOnce(&Path), error: &str) {
    let (folder, kept) = (host.path("start/checkpoint-1"), host.path("kept"));
    copy(&folder, &kept);
    change(&folder);
    let hint = "--resume_from_checkpoint true takes the newest complete one";
    refused(
        host,
        &format!("{TRAIN} {RESUMED}"),
        Refusal::new(DATA, error).hint(hint),
    );
    fs::remove_dir_all(&folder).expect("removed");
    copy(&kept, &folder);
}

#[test]
fn a_folder_that_is_no_checkpoint_is_named() {
    let host = project();
    let line = format!("{TRAIN} {RESUMED}");
    refused(
        &host,
        &line,
        Refusal::new(
            USAGE,
            "resume_from_checkpoint: `start/checkpoint-1` does not exist; give a checkpoint folder",
        ),
    );
    fs::create_dir_all(host.path("start/checkpoint-1")).expect("a folder");
    refused(
        &host,
        &line,
        Refusal::new(
            USAGE,
            "resume_from_checkpoint: `start/checkpoint-1` holds no weights",
        ),
    );
    refused(
        &host,
        &format!("{TRAIN} --resume_from_checkpoint true"),
        Refusal::new(
            USAGE,
            "resume_from_checkpoint: is true, but output_dir holds no checkpoint",
        ),
    );
}

#[test]
fn damage_is_found_and_named() {
    let host = started();
    let cut = |folder: &Path, name: &str| {
        let content = fs::read(folder.join(name)).expect("a file");
        fs::write(folder.join(name), &content[..content.len() / 2]).expect("written");
    };
    let flip = |folder: &Path, name: &str| {
        let mut content = fs::read(folder.join(name)).expect("a file");
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(folder.join(name), content).expect("written");
    };
    for name in [
        "model.safetensors",
        "optimizer.safetensors",
        "rng_state.safetensors",
        "scheduler.json",
        "trainer_state.json",
        "progress.json",
    ] {
        damaged(
            &host,
            |folder| cut(folder, name),
            &format!("checkpoint-1: {name} is "),
        );
        damaged(
            &host,
            |folder| flip(folder, name),
            &format!("checkpoint-1: {name} does not match its digest"),
        );
        if name != "model.safetensors" {
            damaged(
                &host,
                |folder| fs::remove_file(folder.join(name)).expect("removed"),
                &format!("checkpoint-1: {name} is missing"),
            );
        }
    }
    damaged(
        &host,
        |folder| cut(folder, "manifest.json"),
        "manifest.json:",
    );
    damaged(
        &host,
        |folder| fs::remove_file(folder.join("manifest.json")).expect("removed"),
        "but no manifest.json",
    );
    // The original is still good.
    succeeds(&host, &format!("{TRAIN} {RESUMED}"));
}

#[test]
fn a_checkpoint_of_another_model_is_refused() {
    let host = started();
    host.write(
        "train.jsonl",
        &ROWS.replacen("\"label\": 1", "\"label\": 2", 1),
    );
    let mut parts = host::checkpoint::load::read_tensors(&host.path("model/model.safetensors"))
        .expect("weights")
        .tensors;
    parts.retain(|(name, _)| !name.starts_with("classifier"));
    let named: Vec<_> = parts
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    tch::Tensor::write_safetensors(&named, host.path("model/model.safetensors")).expect("written");
    refused(
        &host,
        &format!("{TRAIN} {RESUMED}"),
        Refusal::new(
            DATA,
            "classifier.weight has shape [2, 32] in the file and [3, 32] in the model",
        ),
    );
}

/// In the middle of an epoch the order of other data is another: rows would be seen twice or never.
#[test]
fn a_checkpoint_of_other_data_is_refused() {
    let host = started();
    let hint = "go on with the same data and batch size, or add --ignore_data_skip";
    for (rows, error) in [
        (
            ROWS.repeat(2),
            "the epoch was begun with 8 rows, and now there are 16",
        ),
        (
            ROWS.lines().take(3).map(|row| format!("{row}\n")).collect(),
            "the epoch was begun with 8 rows, and now there are 3",
        ),
    ] {
        host.write("train.jsonl", &rows);
        let refusal = Refusal::new(DATA, error).hint(hint).begun();
        refused(&host, &format!("{TRAIN} {RESUMED}"), refusal);
    }
    host.write("train.jsonl", ROWS);
    let shorter = "--gradient_accumulation_steps 1 --per_device_train_batch_size 16";
    let line = format!("{TRAIN} {RESUMED} {shorter}");
    succeeds(&host, &line);
    host.write("train.jsonl", &ROWS.repeat(2));
    succeeds(
        &host,
        &format!("{TRAIN} {RESUMED} --ignore_data_skip --overwrite_output_dir"),
    );
}
