//! `jit_mode_eval`: the numbers of the module itself, and the seconds it took.

use super::{end, line, read};
use crate::fidelity::data;
use crate::support::{Host, fixture};

#[test]
fn a_frozen_module_evaluates_as_the_module_does_while_it_trains() {
    let run = |arguments: &str| {
        let host = Host::new();
        host.write("rows.jsonl", &data(64));
        // No draw depends on the evaluation: one epoch, whose order is drawn before it.
        let words = format!(
            "train --train_file rows.jsonl --validation_file rows.jsonl --evaluation_strategy steps --eval_steps 3 \
             --num_train_epochs 1 --learning_rate 0.1 {arguments}"
        );
        host.succeeds(line(&host, &words));
        let state = read(&host.path("out/trainer_state.json"));
        let entries = state["log_history"].as_array().expect("entries").clone();
        let evaluations = entries
            .into_iter()
            .filter(|entry| entry.get("eval_loss").is_some());
        let evaluations: Vec<_> = evaluations.collect();
        let losses = evaluations.iter().map(|entry| entry["eval_loss"].clone());
        (losses.collect::<Vec<_>>(), evaluations)
    };
    let ((plain, _), (frozen, entries)) = (run(""), run("--jit_mode_eval"));
    assert_eq!(plain, frozen);
    assert_eq!(plain.len(), 3);
    for entry in entries {
        let seconds = entry["eval_jit_compilation_time"]
            .as_f64()
            .expect("seconds");
        assert!((0.0..60.0).contains(&seconds), "{entry}");
    }
}

#[test]
fn a_native_model_is_evaluated_as_it_is_with_a_warning() {
    let host = Host::new();
    let mut command = host.command("evaluate");
    command.arg("--model").arg(fixture("golden/init_toy"));
    command
        .arg("--validation_file")
        .arg(fixture("golden/toy/validation.jsonl"));
    command.args("--jit_mode_eval --output_dir out --use_cpu".split_whitespace());
    let ended = end(command);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("jit_mode_eval has no effect: a native model cannot be traced"),
        "{}",
        ended.stderr
    );
    let results = read(&host.path("out/eval_results.json"));
    assert!(results["eval_loss"].is_f64() && results["eval_jit_compilation_time"].is_f64());
}
