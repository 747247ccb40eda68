//! Spec 5.3 to 5.5 through the program: the files that a run leaves and what it says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use host::checkpoint::save::{ModelFiles, WeightsOptions};
use host::checkpoint::{load, save};
use serde_json::{Value, json};

use crate::fidelity;
use crate::plugin::official;
use crate::support::{Host, fixture};

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&text(path)).expect("JSON")
}

fn keys(value: &Value) -> BTreeSet<&str> {
    let object = value.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

fn lines(path: &Path) -> Vec<Value> {
    text(path)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

/// The recorded BERT without its head, which a run then makes for its labels.
fn headless(host: &Host) -> PathBuf {
    let (source, folder) = (fixture("golden/init_toy"), host.path("headless"));
    fs::create_dir(&folder).expect("a folder");
    let all = load::read_tensors(&source.join("model.safetensors"))
        .expect("weights")
        .tensors;
    let weights: Vec<_> = all
        .into_iter()
        .filter(|(name, _)| !name.starts_with("classifier"))
        .collect();
    let files = ModelFiles {
        weights: &weights,
        options: WeightsOptions {
            format_pt: true,
            max_shard_bytes: u64::MAX,
        },
        config: None,
        copies: &["config.json", "tokenizer.json", "tokenizer_config.json"]
            .map(|name| source.join(name)),
    };
    save::write_model(&folder, files).expect("a model");
    folder
}

/// `host train` with the recorded BERT on a file, which is trained on, evaluated and predicted.
fn bert(host: &Host, file: &Path, arguments: &str) -> Command {
    train(host, (&fixture("golden/init_toy"), file), arguments)
}

fn train(host: &Host, (model, file): (&Path, &Path), arguments: &str) -> Command {
    let mut command = host.command("train");
    command.arg("--model").arg(model);
    for set in ["--train_file", "--validation_file", "--test_file"] {
        command.arg(set).arg(file);
    }
    let common = "--output_dir out --use_cpu --report_to none --max_length 16 --do_predict --do_eval --save_strategy no";
    command
        .args(common.split_whitespace())
        .args(arguments.split_whitespace());
    command
}

#[test]
fn the_trainer_state_is_the_references() {
    let host = Host::new();
    fidelity::train(&host, 64, "--max_steps 5 --save_steps 3 --logging_steps 2");
    let recorded = read(&fixture("golden/base/trainer_state.json"));
    for (file, entries) in [
        ("out/checkpoint-3/trainer_state.json", 1),
        ("out/trainer_state.json", 4),
    ] {
        let path = host.path(file);
        let state = read(&path);
        assert_eq!(keys(&state), keys(&recorded), "{file}");
        assert_eq!(keys(&state).len(), 16);
        for (interval, value) in [
            ("logging_steps", "2"),
            ("save_steps", "3"),
            ("max_steps", "5"),
        ] {
            assert_eq!(state[interval].to_string(), value, "{file}");
        }
        assert_eq!(
            state["log_history"].as_array().map(Vec::len),
            Some(entries),
            "{file}"
        );
        // The same text as the reference's json.dumps(indent=2, sort_keys=True) and a newline.
        let text = text(&path);
        let names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("  \"")?.split('"').next())
            .collect();
        assert!(names.is_sorted() && text.ends_with("\n}\n"), "{text}");
    }
    assert_eq!(
        read(&host.path("out/checkpoint-3/trainer_state.json"))["epoch"],
        0.375
    );
    assert!(text(&host.path("out/curves.svg")).contains("loss"));
}

#[test]
fn operations_are_counted_up_to_the_checkpoint() {
    let host = Host::new();
    let toy = fixture("golden/toy/train.jsonl");
    let mut command = bert(
        &host,
        &toy,
        "--max_train_samples 8 --max_steps 3 --per_device_train_batch_size 4",
    );
    command.args(["--save_strategy", "steps", "--save_steps", "3"]);
    host.succeeds(command);
    let saved = read(&host.path("out/checkpoint-3/trainer_state.json"))["total_flos"].clone();
    assert!(saved.as_f64() > Some(0.0));
    assert_eq!(
        saved,
        read(&host.path("out/trainer_state.json"))["total_flos"]
    );
}

#[test]
fn results_of_all_splits_are_merged() {
    let host = Host::new();
    let toy = fixture("golden/toy/train.jsonl");
    let samples =
        "--max_train_samples 8 --max_eval_samples 6 --max_predict_samples 4 --max_steps 1";
    let shown = host.succeeds(bert(&host, &toy, samples));
    let all = read(&host.path("out/all_results.json"));
    let mut union = BTreeSet::new();
    let files = ["train", "eval", "predict"]
        .map(|split| read(&host.path(&format!("out/{split}_results.json"))));
    for (file, split) in files.iter().zip(["train", "eval", "predict"]) {
        union.extend(keys(file));
        assert!(
            shown.contains(&format!("***** {split} metrics *****")),
            "{shown}"
        );
    }
    assert_eq!(keys(&all), union);
    for (name, rows) in [
        ("train_samples", "8"),
        ("eval_samples", "6"),
        ("predict_samples", "4"),
    ] {
        assert_eq!(all[name].to_string(), rows, "a count is whole");
    }
    for name in [
        "train_loss",
        "eval_loss",
        "eval_accuracy",
        "predict_accuracy",
        "epoch",
    ] {
        assert!(all[name].is_f64(), "{name}: {all}");
    }
    assert_eq!(all.get("total_flos"), None);
    assert_eq!(lines(&host.path("out/predictions.jsonl")).len(), 4);
    assert!(shown.contains("not finite: 0"), "{shown}");
}

#[test]
fn predictions_by_kind_of_label() {
    type Check = fn(&Value);
    let cases: [(&str, &[Value], Check); 3] = [
        ("single label", &[json!("bad"), json!("good")], |row| {
            let scores = row["scores"].as_object().expect("scores");
            let names: BTreeSet<&str> = scores.keys().map(String::as_str).collect();
            assert_eq!(names, BTreeSet::from(["bad", "good"]));
            let sum: f64 = scores.values().filter_map(Value::as_f64).sum();
            assert!((sum - 1.0).abs() < 1e-5);
            let label = row["label"].as_str().expect("a label");
            assert_eq!(row["score"], scores[label]);
            assert!(row["score"].as_f64() >= Some(0.5));
        }),
        (
            "multi label",
            &[json!([1.0, 0.0, 1.0]), json!([0.0, 1.0, 1.0])],
            |row| {
                let scores = row["scores"].as_object().expect("scores");
                assert_eq!(scores.len(), 3);
                let chosen: Vec<&String> = scores
                    .iter()
                    .filter(|(_, score)| score.as_f64() > Some(0.5))
                    .map(|(name, _)| name)
                    .collect();
                let labels = row["labels"].as_array().expect("labels");
                assert_eq!(labels.len(), chosen.len());
            },
        ),
        ("regression", &[json!(0.25), json!(1.75)], |row| {
            assert!(row["prediction"].is_f64());
        }),
    ];
    for (what, labels, check) in cases {
        let host = Host::new();
        let row = |index: usize| json!({"text": format!("word {index}"), "label": labels[index % labels.len()]});
        let data: String = (0..6).map(|index| format!("{}\n", row(index))).collect();
        let file = host.write("data.jsonl", &data);
        host.succeeds(train(&host, (&headless(&host), &file), "--max_steps 1"));
        let predictions = lines(&host.path("out/predictions.jsonl"));
        assert_eq!(predictions.len(), 6, "{what}");
        for (index, prediction) in predictions.iter().enumerate() {
            assert_eq!(prediction["row"], index, "{what}");
            check(prediction);
        }
    }
}

#[test]
fn tags_are_predicted_for_every_word() {
    let host = Host::new();
    let rows: Vec<String> = text(&fixture("tokens/train.jsonl"))
        .lines()
        .take(12)
        .map(str::to_owned)
        .collect();
    let file = host.write("data.jsonl", &rows.join("\n"));
    let arguments =
        "--task token-classification --max_steps 2 --max_length 64 --per_device_eval_batch_size 5";
    host.succeeds(train(&host, (&headless(&host), &file), arguments));
    let predictions = lines(&host.path("out/predictions.jsonl"));
    assert_eq!(predictions.len(), 12);
    let mut known = BTreeSet::new();
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| serde_json::from_str(row).expect("JSON"))
        .collect();
    for row in &rows {
        let tags = row["tags"].as_array().expect("tags");
        known.extend(tags.iter().filter_map(Value::as_str));
    }
    for (prediction, row) in predictions.iter().zip(&rows) {
        let (labels, words) = (prediction["labels"].as_array(), row["tokens"].as_array());
        let labels = labels.expect("labels");
        assert_eq!(
            labels.len(),
            words.expect("words").len(),
            "{prediction} {row}"
        );
        assert!(
            labels
                .iter()
                .all(|label| known.contains(label.as_str().expect("a tag")))
        );
    }
    let all = read(&host.path("out/all_results.json"));
    assert!(
        all["eval_accuracy"].is_f64() && all["predict_accuracy"] == all["eval_accuracy"],
        "{all}"
    );

    // Without tags the same labels; words that are cut off have none.
    let words: Vec<String> = rows
        .iter()
        .map(|row| serde_json::json!({ "tokens": row["tokens"] }).to_string())
        .collect();
    let file = host.write("words.jsonl", &words.join("\n"));
    let without_tags = predict(&host, &file, "--max_length 64");
    assert_eq!(without_tags, predictions);
    let cut = predict(&host, &file, "--max_length 5");
    let labels = |row: &Value| row["labels"].as_array().expect("labels").clone();
    for (cut, whole) in cut.iter().zip(&without_tags) {
        let (cut, whole) = (labels(cut), labels(whole));
        assert_eq!(cut.len(), whole.len());
        assert!(cut[0].is_string());
    }
    let last = cut.iter().filter_map(|row| labels(row).pop());
    assert!(last.filter(Value::is_null).count() > 6);
}

/// Predictions of the trained model of the output folder.
fn predict(host: &Host, file: &Path, arguments: &str) -> Vec<Value> {
    let mut command = host.command("predict");
    command
        .arg("--model")
        .arg(host.path("out"))
        .arg("--test_file")
        .arg(file)
        .arg("--output_dir")
        .arg(host.path("predicted"))
        .arg("--use_cpu")
        .args(arguments.split_whitespace());
    host.succeeds(command);
    lines(&host.path("predicted/predictions.jsonl"))
}

/// Row 84: what is told of the run follows the log level.
#[test]
fn the_log_level_decides_what_is_told() {
    let toy = fixture("golden/toy/train.jsonl");
    for (level, is_told) in [("debug", true), ("passive", true), ("error", false)] {
        let host = Host::new();
        let arguments = format!(
            "--max_train_samples 8 --max_eval_samples 6 --max_predict_samples 4 --max_steps 1 --log_level {level}"
        );
        let shown = host.succeeds(bert(&host, &toy, &arguments));
        assert_eq!(
            shown.contains("training: 8 rows"),
            is_told,
            "{level}: {shown}"
        );
    }
}

/// Row 58: there is a loss, and there are no predictions.
#[test]
fn only_the_loss() {
    let host = Host::new();
    let toy = fixture("golden/toy/train.jsonl");
    let arguments = "--max_train_samples 8 --max_eval_samples 6 --max_predict_samples 4 --max_steps 1 --prediction_loss_only";
    let shown = host.succeeds(bert(&host, &toy, arguments));
    let all = read(&host.path("out/all_results.json"));
    assert!(
        all["eval_loss"].is_f64() && all["predict_loss"].is_f64(),
        "{all}"
    );
    assert_eq!(
        (all.get("eval_accuracy"), all.get("predict_accuracy")),
        (None, None)
    );
    assert_eq!(all["predict_samples"], 4);
    assert!(!host.path("out/predictions.jsonl").exists());
    assert!(shown.contains("prediction_loss_only"), "{shown}");
}

/// Row 51 without its metric, which is the user's.
#[test]
fn evaluation_of_data_r() {
    for (file, expected) in [("r.jsonl", 0.379_020_5), ("r66.jsonl", 0.418_514_6)] {
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
        host.succeeds(command);
        let found = read(&host.path("out/eval_results.json"))["eval_loss"]
            .as_f64()
            .expect("a loss");
        assert!((found - expected).abs() < 1e-6, "{file}: {found}");
    }
}

/// A logits processor that chooses the classes changes the form of the predictions, not what they say.
#[test]
fn chosen_classes_are_predicted_by_name() {
    let host = Host::new();
    let toy = fixture("golden/toy/train.jsonl");
    host.succeeds(bert(&host, &toy, "--max_train_samples 8 --max_steps 1"));
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("files");
    let labels = |arguments: &[&Path]| -> Vec<Value> {
        let mut command = host.command("predict");
        command
            .arg("--model")
            .arg(host.path("out"))
            .arg("--test_file")
            .arg(&toy)
            .args([
                "--output_dir",
                "predicted",
                "--use_cpu",
                "--max_predict_samples",
                "8",
            ])
            .args(arguments)
            .env("XDG_CACHE_HOME", &cache);
        host.succeeds(command);
        let rows = lines(&host.path("predicted/predictions.jsonl"));
        rows.iter().map(|row| row["label"].clone()).collect()
    };
    let by_plugin = labels(&[Path::new("--plugin"), &official("argmax")]);
    assert_eq!(by_plugin, labels(&[]));
    assert!(by_plugin.iter().all(Value::is_string), "{by_plugin:?}");
}

#[test]
fn a_plugin_replaces_the_built_in_metric() {
    let host = Host::new();
    let toy = fixture("golden/toy/train.jsonl");
    let arguments = "--max_train_samples 8 --max_eval_samples 6 --max_predict_samples 4 --max_steps 1 --metric_for_best_model f1";
    let mut command = bert(&host, &toy, arguments);
    command
        .arg("--plugin")
        .arg(official("classification_metrics"));
    command.env(
        "XDG_CACHE_HOME",
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("files"),
    );
    host.succeeds(command);
    let results = read(&host.path("out/eval_results.json"));
    for name in ["eval_accuracy", "eval_f1", "eval_precision", "eval_recall"] {
        assert!(results[name].is_f64(), "{name}: {results}");
    }
    // Without the plugin nobody reports F1, which is known before the first step.
    let refused = Host::new();
    let mut command = bert(&refused, &toy, arguments);
    let output = command.output().expect("the program runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("no metric \"f1\", only eval_loss") && stderr.contains("eval_accuracy"),
        "{stderr}"
    );
    assert!(!stderr.contains("step 1/"), "{stderr}");
}

#[test]
fn what_was_not_finite_is_told_and_can_end_the_run() {
    // 1e30 squared is more than float32 holds.
    let rows: String = (0..8)
        .map(|index| {
            let x = if index == 5 { 1e30 } else { 1.0 };
            format!("{{\"input_x\": {x:?}, \"label\": {x:?}}}\n")
        })
        .collect();
    for (mode, code, expected) in [
        ("warn", 0, "not finite: "),
        ("skip", 0, "not finite: 1"),
        ("stop", 77, "not finite at step "),
    ] {
        let host = Host::new();
        let file = host.write("data.jsonl", &rows);
        let mut command = host.command("train");
        command
            .arg("--model")
            .arg(fixture("torchscript/regression.pt"));
        command.arg("--train_file").arg(&file);
        let common = "--trust_model_code --output_dir out --use_cpu --report_to none --num_train_epochs 1 \
                      --per_device_train_batch_size 1 --on_nonfinite";
        command.args(common.split_whitespace()).arg(mode);
        let output = command.output().expect("the program runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{mode}: {stderr}");
        assert!(stderr.contains(expected), "{mode}: {stderr}");
        assert!(!stderr.contains("not finite: 0"), "{mode}: {stderr}");
    }
}

/// Rows 47 to 50 through the program.
#[test]
fn resuming_a_finished_run_with_other_arguments() {
    let host = Host::new();
    fidelity::train(&host, 64, "--save_steps 8 --logging_steps 8");
    // Only exact names count, and the largest step wins.
    for name in ["checkpoint-100x", "checkpoint-", "xcheckpoint-99"] {
        fs::create_dir(host.path("out").join(name)).expect("a folder");
    }
    let history = |host: &Host| read(&host.path("out/trainer_state.json"))["log_history"].clone();
    let before = history(&host).as_array().expect("a list").len();
    fidelity::train(
        &host,
        64,
        "--save_steps 8 --logging_steps 8 --resume_from_checkpoint true",
    );
    let after = history(&host);
    let after = after.as_array().expect("a list");
    assert_eq!(after.len(), before);
    // The last entry is that of the evaluation afterwards.
    assert_eq!(after[before - 2]["train_loss"], 0.0);
    // The curves have the whole run, not only what came after.
    let points = text(&host.path("out/curves.svg"));
    assert!(
        points.contains("learning_rate") && points.contains("polyline"),
        "{points}"
    );

    let mut command = host.command("train");
    command
        .arg("--model")
        .arg(fixture("torchscript/regression.pt"));
    command.arg("--train_file").arg(host.path("data.jsonl"));
    let common = "--trust_model_code --output_dir out --use_cpu --report_to none --save_steps 4 --logging_steps 2 \
                  --learning_rate 0.05 --num_train_epochs 4 --resume_from_checkpoint true";
    command.args(common.split_whitespace());
    let shown = host.succeeds(command);
    let told: Vec<&str> = shown
        .lines()
        .filter(|line| line.contains("new arguments win"))
        .collect();
    let [line] = &told[..] else {
        panic!("one line: {shown}")
    };
    for change in [
        "learning_rate 0.1 -> 0.05",
        "logging_steps 8 -> 2",
        "save_steps 8 -> 4",
        "max_steps 24 -> 32",
    ] {
        assert!(line.contains(change), "{change}: {line}");
    }
}
