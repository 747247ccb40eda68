//! Memory that runs out, memory that is measured, and tokens that are counted.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{json, results, run, train, train_on, train_script, weights};
use crate::support::Host;

/// KiB of address space: the program, and scratch memory for 8 rows of `hungry.pt`, not for 16.
const ADDRESS_SPACE: u64 = 4_500_000;

/// The same command with less address space than it would like.
fn limited(command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited
        .args([
            "-c",
            &format!("ulimit -v {ADDRESS_SPACE}; exec \"$@\""),
            "sh",
        ])
        .arg(command.get_program())
        .args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        limited.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        limited.env(name, value.unwrap_or_default());
    }
    limited
}

/// Row 83: from 64 rows to 8; weights, buffers, moments and draws are then those of a run that began with 8.
#[test]
fn the_batch_size_is_halved_until_it_fits() {
    let host = Host::new();
    let hungry = |output: &str, line: &str| train_script(&host, output, ("hungry.pt", line));
    let shown = host.succeeds(limited(&hungry(
        "found",
        "--per_device_train_batch_size 64 --auto_find_batch_size",
    )));
    for size in [32, 16, 8] {
        let line = format!("beginning again with batches of {size}\n");
        assert!(shown.contains(&line), "{line}{shown}");
    }
    let state = json(&host.path("found/trainer_state.json"));
    assert_eq!(state["global_step"], 24);
    let arguments = json(&host.path("found/training_args.json"));
    assert_eq!(arguments["per_device_train_batch_size"], 64);
    host.succeeds(limited(&hungry("given", "--per_device_train_batch_size 8")));
    assert_eq!(weights(&host, "found"), weights(&host, "given"));

    // Without the argument the failure is the user's to see.
    let ended = run(limited(&hungry(
        "failed",
        "--per_device_train_batch_size 64",
    )));
    assert_ne!(ended.code, Some(0));
    assert!(
        ended
            .stderr
            .contains("DefaultCPUAllocator: can't allocate memory"),
        "{}",
        ended.stderr
    );
}

/// Row 64, and field 80.
#[test]
fn memory_is_reported_if_asked_for() {
    let host = Host::new();
    host.succeeds(train(&host, "plain", ""));
    let is_memory = |name: &&String| name.contains("_mem_");
    let plain = results(&host, "plain");
    assert_eq!(
        plain.as_object().expect("an object").keys().find(is_memory),
        None
    );
    let shown = host.succeeds(train(&host, "measured", "--skip_memory_metrics false"));
    let measured = results(&host, "measured");
    for stage in ["init", "train", "eval"] {
        for part in ["alloc", "peaked"] {
            let name = format!("{stage}_mem_cpu_{part}_delta");
            assert!(measured[&name].is_i64(), "{name}: {measured}");
        }
    }
    let before = measured["before_init_mem_cpu"].as_i64().expect("bytes");
    assert!(before > 20 << 20, "{before}");
    assert!(
        measured["train_mem_cpu_alloc_delta"].as_i64() > Some(1 << 20),
        "{measured}"
    );
    let line = format!("before_init_mem_cpu={}MB", before >> 20);
    assert!(shown.replace(' ', "").contains(&line), "{line}{shown}");
    // Training's own are part of its log entry, those of an evaluation come after it.
    let state = json(&host.path("measured/trainer_state.json"));
    let history = state["log_history"].as_array().expect("a list").clone();
    let has = |name: &str| history.iter().any(|entry| entry.get(name).is_some());
    assert!(has("train_mem_cpu_alloc_delta") && !has("eval_mem_cpu_alloc_delta"));
    assert_eq!(weights(&host, "plain"), weights(&host, "measured"));
}

/// Row 92: 10 rows of 3 tokens in batches of 4.
#[test]
fn tokens_are_counted_as_planned() {
    let row = |index: usize| format!("{{\"text\": \"soup\", \"label\": {}}}\n", index % 2);
    for (line, expected) in [
        ("--max_steps -1 --num_train_epochs 2", 60.0),
        ("--max_steps 3", 36.0),
        ("--max_steps 3 --gradient_accumulation_steps 2", 72.0),
    ] {
        let host = Host::new();
        let rows = host.write("rows.jsonl", &(0..10).map(row).collect::<String>());
        let mut command = train_on(&host, &rows, ("out", "--per_device_train_batch_size 4"));
        command.args(line.split_whitespace());
        command.arg("--include_tokens_per_second");
        host.succeeds(command);
        let results = results(&host, "out");
        let number = |name: &str| {
            results[name]
                .as_f64()
                .unwrap_or_else(|| panic!("{name}: {results}"))
        };
        let tokens = number("train_tokens_per_second") * number("train_runtime");
        assert!((tokens / expected - 1.0).abs() < 0.05, "{line}: {tokens}");
    }
}

/// Counting reads an epoch, which draws as an epoch draws: the order of the data is the second one (field 90).
#[test]
fn counting_tokens_moves_the_random_draws() {
    let host = Host::new();
    host.succeeds(train(&host, "plain", "--max_steps 2"));
    host.succeeds(train(
        &host,
        "counted",
        "--max_steps 2 --include_tokens_per_second",
    ));
    let rows = |output: &str| {
        let text = fs::read_to_string(host.path(&format!("{output}.jsonl"))).expect("the record");
        let first: Value =
            serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
        first["rows"].clone()
    };
    assert_ne!(rows("plain"), rows("counted"));
}
