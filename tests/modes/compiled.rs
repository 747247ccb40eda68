//! `torch_compile`: TorchScript that fuses operations, and AOT packages.

use std::fs;

use serde_json::Value;

use super::{json, run, weights};
use crate::support::{Ended, Host, fixture};

/// `host <command>` of the recorded classifier as this file, on its rows.
fn classifier(host: &Host, command: &str, (file, line): (&str, &str)) -> Ended {
    let rows = fixture("compiled/rows.jsonl");
    let mut command = host.command(command);
    for name in ["--train_file", "--validation_file", "--test_file"] {
        command.arg(name).arg(&rows);
    }
    command
        .arg("--model")
        .arg(fixture("compiled").join(file))
        .args("--trust_model_code --use_cpu --report_to none".split_whitespace())
        .args(line.split_whitespace());
    run(command)
}

fn succeeds(host: &Host, command: &str, (file, line): (&str, &str)) -> Ended {
    let ended = classifier(host, command, (file, line));
    assert_eq!(ended.code, Some(0), "{file} {line}: {}", ended.stderr);
    ended
}

fn close(left: &Value, right: &Value) {
    let (left, right) = (
        left.as_f64().expect("a number"),
        right.as_f64().expect("a number"),
    );
    assert!((left - right).abs() < 1e-6, "{left} {right}");
}

fn evaluated(host: &Host, folder: &str) -> Value {
    json(&host.path(folder).join("eval_results.json"))["eval_loss"].clone()
}

#[test]
fn torchscript_fuses_operations_where_it_evaluates() {
    let host = Host::new();
    let told = "torch_compile: 2 groups of operations are fused";
    for (folder, words, is_fused) in [
        ("plain", "", false),
        ("eager", "--torch_compile_backend eager", false),
        ("whole", "--torch_compile", true),
        (
            "named",
            "--torch_compile_backend ts --torch_compile_mode default",
            true,
        ),
        ("old", "--torchdynamo ts", true),
    ] {
        let line = format!("--output_dir {folder} --log_level info {words}");
        let ended = succeeds(&host, "evaluate", ("classifier.pt", &line));
        assert_eq!(
            ended.stderr.contains(told),
            is_fused,
            "{words}: {}",
            ended.stderr
        );
        close(&evaluated(&host, folder), &evaluated(&host, "plain"));
    }
}

/// What is fused computes no gradients.
#[test]
fn fused_evaluations_do_not_change_training() {
    let host = Host::new();
    let line = "--max_steps 6 --learning_rate 0.1 --evaluation_strategy steps --eval_steps 2 --save_strategy no";
    for (folder, words) in [("plain", ""), ("fused", "--torch_compile")] {
        let line = format!("--output_dir {folder} {line} {words}");
        succeeds(&host, "train", ("classifier.pt", &line));
    }
    assert!(weights(&host, "plain") == weights(&host, "fused"));
    close(&evaluated(&host, "plain"), &evaluated(&host, "fused"));
}

/// libtorch's fuser has its limits. A warning tells that nothing came of it, and the module is evaluated as it is.
#[test]
fn a_module_that_cannot_be_fused_is_evaluated_as_it_is() {
    let host = Host::new();
    let rows = fixture("torchscript/r.jsonl");
    let mut command = host.command("evaluate");
    command.arg("--validation_file").arg(rows).arg("--model");
    command.arg(fixture("torchscript/regression_1.5_2.5.pt"));
    command
        .args("--trust_model_code --use_cpu --output_dir out --torch_compile".split_whitespace());
    let ended = run(command);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let told = "torch_compile has no effect: ";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
}

#[test]
fn a_package_evaluates_and_predicts_as_the_module_it_was_made_of() {
    let host = Host::new();
    for (folder, file, words) in [
        ("module", "classifier.pt", ""),
        ("package", "classifier.pt2", ""),
        ("named", "classifier.pt2", "--torch_compile"),
    ] {
        let line = format!("--output_dir {folder} {words}");
        succeeds(&host, "evaluate", (file, &line));
        succeeds(&host, "predict", (file, &line));
        close(&evaluated(&host, folder), &evaluated(&host, "module"));
        let lines = |folder| {
            let text = fs::read_to_string(host.path(folder).join("predictions.jsonl"));
            let text = text.expect("predictions");
            let rows = text
                .lines()
                .map(|line| serde_json::from_str(line).expect("JSON"));
            rows.collect::<Vec<Value>>()
        };
        let (expected, found) = (lines("module"), lines(folder));
        assert_eq!((expected.len(), found.len()), (40, 40));
        for (expected, found) in expected.iter().zip(&found) {
            for name in ["logits", "hidden"] {
                let numbers = |row: &Value| row[name].as_array().expect("numbers").clone();
                for (left, right) in numbers(expected).iter().zip(&numbers(found)) {
                    close(left, right);
                }
            }
        }
    }
}

/// Without checks a package would read whatever lies behind a column of another size.
#[test]
fn columns_that_do_not_fit_a_package_are_refused() {
    let host = Host::new();
    for (rows, expected) in [
        (
            r#"{"x": [1.0, 2.0], "label": 1}"#,
            "it was given x Float [1, 2], labels Int64 [1]",
        ),
        (
            r#"{"x": [1, 2, 3], "label": 1}"#,
            "it was given x Int64 [1, 3], labels Int64 [1]",
        ),
        (
            r#"{"x": [1.0, 2.0, 3.0]}"#,
            "forward(x, labels) needs labels, but the batch has only x",
        ),
    ] {
        host.write("rows.jsonl", rows);
        let line = "--output_dir out --validation_file rows.jsonl";
        let mut command = host.command("evaluate");
        command
            .arg("--model")
            .arg(fixture("compiled/classifier.pt2"));
        command.args("--trust_model_code --use_cpu".split_whitespace());
        command.args(line.split_whitespace());
        let ended = run(command);
        assert_ne!(ended.code, Some(0));
        assert!(ended.stderr.contains(expected), "{rows}: {}", ended.stderr);
    }
    host.write("broken.pt2", "no zip file");
    let ended = host.run(
        "evaluate --model broken.pt2 --validation_file rows.jsonl --output_dir out --trust_model_code --use_cpu",
    );
    assert!(
        ended.stderr.contains("broken.pt2 is not an AOT package"),
        "{}",
        ended.stderr
    );
}
