//! Where a model comes from, what is seen of its outputs, and which callbacks are called.

use std::fs;

use host::checkpoint::load::read_tensors;
use serde_json::{Value, json};

use super::{Bench, read};
use crate::support::{Host, fixture};

/// `model_init` of the reference's scripts: a model made of a configuration, drawn as the reference draws it.
#[test]
fn weights_are_drawn_anew_from_a_configuration() {
    let recorded = read(&fixture("from_config.json"));
    for task in ["sequence-classification", "masked-lm"] {
        let host = Host::new();
        let source = fixture("golden/init_toy");
        fs::create_dir_all(host.path("new")).expect("a folder");
        for name in [
            "config.json",
            "tokenizer.json",
            "vocab.txt",
            "tokenizer_config.json",
            "special_tokens_map.json",
        ] {
            fs::copy(source.join(name), host.path("new").join(name)).expect("a copy");
        }
        let rows = (0..3).map(|label| json!({"text": "a b", "label": label}).to_string() + "\n");
        host.write("rows.jsonl", &rows.collect::<String>());
        let line = format!(
            "train --config_name new --task {task} --train_file rows.jsonl --output_dir out --max_steps 1 \
             --learning_rate 0 --save_strategy no --use_cpu"
        );
        let ended = host.run(&line);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(!ended.stderr.contains("newly"), "{}", ended.stderr);
        let saved = read_tensors(&host.path("out/model.safetensors"))
            .expect("weights")
            .tensors;
        let expected = recorded[task].as_object().expect("parameters");
        assert_eq!(saved.len(), expected.len(), "{task}");
        for (name, tensor) in &saved {
            let flat = tensor.flatten(0, -1);
            let numbers = expected[name].as_array().expect("numbers");
            let found = (0..3).map(|index| flat.double_value(&[index]));
            let found = found.chain([tensor.norm().double_value(&[])]);
            for (found, expected) in found.zip(numbers) {
                let expected = expected.as_f64().expect("a number");
                assert!(
                    (found - expected).abs() < 1e-6,
                    "{task} {name}: {found} {expected}"
                );
            }
        }
    }
}

#[test]
fn a_configuration_is_for_training_alone() {
    let bench = Bench::new();
    let both = bench.refused("--config_name model");
    assert!(
        both.contains("config_name: draws all weights anew, and model has weights"),
        "{both}"
    );
    let host = Host::new();
    let ended =
        host.run("evaluate --config_name model --validation_file rows.jsonl --output_dir out");
    assert!(
        ended
            .stderr
            .contains("config_name: draws all weights anew, and only training"),
        "{}",
        ended.stderr
    );
    let ended = host.run("train --config_name nowhere --train_file rows.jsonl --output_dir out");
    assert!(
        ended
            .stderr
            .contains("config_name: `nowhere` is no folder with config.json"),
        "{}",
        ended.stderr
    );
}

#[test]
fn outputs_that_are_ignored_are_not_predicted() {
    let predicted = |words: &str| {
        let host = Host::new();
        let mut command = host.command("predict");
        command
            .arg("--model")
            .arg(fixture("compiled/classifier.pt"));
        command
            .arg("--test_file")
            .arg(fixture("compiled/rows.jsonl"));
        command.args("--trust_model_code --use_cpu --output_dir out".split_whitespace());
        command.args(words.split_whitespace());
        host.succeeds(command);
        let text = fs::read_to_string(host.path("out/predictions.jsonl")).expect("predictions");
        let row: Value = serde_json::from_str(text.lines().next().expect("a row")).expect("JSON");
        let names = row.as_object().expect("an object").keys();
        names.cloned().collect::<Vec<_>>()
    };
    assert_eq!(predicted(""), ["row", "logits", "hidden"]);
    assert_eq!(predicted("--ignore_keys hidden"), ["row", "logits"]);
    assert_eq!(predicted("--ignore_keys logits other"), ["row", "hidden"]);
}

#[test]
fn built_in_callbacks_are_called_by_name() {
    let bench = Bench::new();
    let common = "--max_steps 12 --logging_steps 1 --evaluation_strategy steps --eval_steps 2 --save_strategy steps \
                  --save_steps 2 --load_best_model_at_end --learning_rate 0";
    let run = |words: &str| bench.train(&format!("{common} {words}"));
    let plain = run("");
    assert!(plain.shown.contains("step 4/12"), "{}", plain.shown);
    assert_eq!(plain.state["global_step"], json!(12));
    // No progress, but all that the arguments ask for.
    let silent = run("--callbacks DefaultFlowCallback");
    assert!(!silent.shown.contains("step 4/12"), "{}", silent.shown);
    assert_eq!(silent.steps_with("loss").len(), 12);
    // The loss does not change: one evaluation without improvement is one too many.
    let early = run("--callbacks default_flow early_stopping progress");
    assert_eq!(early.state["global_step"], json!(4));
    // Without the flow nothing is logged or evaluated.
    let none = bench.train("--callbacks progress --logging_steps 1");
    assert_eq!(none.steps_with("loss"), [] as [u64; 0]);
    let unknown = bench.refused("--callbacks default_flw");
    let expected = "callbacks: `default_flw` is not a built-in callback (did you mean `default_flow`?); use some of default_flow";
    assert!(unknown.contains(expected), "{unknown}");
    let contradiction = bench.refused(&format!(
        "{common} --callbacks progress --early_stopping_patience 2"
    ));
    assert!(
        contradiction.contains("callbacks: lacks early_stopping"),
        "{contradiction}"
    );
}

#[test]
fn inputs_that_nobody_sees_are_told_of() {
    let host = Host::new();
    host.write("model/config.json", "{}");
    host.write("rows.jsonl", "{}\n");
    let line = "evaluate --model model --validation_file rows.jsonl --output_dir out --use_cpu --include_inputs_for_metrics";
    let told = "include_inputs_for_metrics has no effect: no plugin sees the inputs";
    let ended = host.run(line);
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
}
