//! (words, file) -> resolved run.

use std::ffi::OsString;
use std::path::Path;

use host::config::hub::{HubSurroundings, Secret};
use host::config::input::{self, Request};
use host::config::resolve::{Resolved, resolve};
use host::config::run::{Command, Run};
use host::config::surroundings::Surroundings;
use serde_json::{Value, json};

use crate::support::Host;

fn surroundings(folder: &Path) -> Surroundings {
    Surroundings {
        current_dir: folder.to_path_buf(),
        home: Some("/home/ada".into()),
        cache: None,
        num_threads: 4,
        host_name: "box".to_owned(),
        now: 0,
        hub: HubSurroundings {
            endpoint: "https://hub.test".to_owned(),
            cache: Some("/home/ada/hub".into()),
            token: Some(Secret::new("hf_own")),
            offline: false,
        },
    }
}

/// A project whose `run.toml` holds `file`.
struct Project {
    host: Host,
}

impl Project {
    fn new(file: &str) -> Self {
        let host = Host::new();
        host.write("model/config.json", "{}");
        for name in [
            "train.jsonl",
            "more.jsonl",
            "valid.jsonl",
            "test.jsonl",
            "f1.wasm",
            "sub/f1.wasm",
            "module.pt",
            "out/checkpoint-5/model.safetensors",
        ] {
            host.write(name, "");
        }
        let base = "model = \"model\"\ntrain_file = \"train.jsonl\"\noutput_dir = \"new\"\n";
        host.write("run.toml", &format!("{base}{file}"));
        Self { host }
    }

    fn resolve(&self, command: Command, words: &str) -> Resolved {
        let file = self.host.path("run.toml").into_os_string();
        let words = std::iter::once(file).chain(words.split_whitespace().map(OsString::from));
        let Request::Run(input) = input::read(words).expect("a readable file") else {
            panic!("help was not asked for")
        };
        resolve(command, &input, &surroundings(self.host.folder()))
            .unwrap_or_else(|error| panic!("{error:#}"))
    }
}

/// The value at a path like `train.seed` in the run's JSON, the project's folder written as `~`.
fn at(run: &Run, path: &str, folder: &Path) -> Value {
    let mut value = serde_json::to_value(run).expect("JSON");
    for key in path.split('.') {
        value = value[key].take();
    }
    let text = value.to_string().replace(&*folder.to_string_lossy(), "~");
    serde_json::from_str(&text).expect("JSON")
}

fn check(command: Command, cases: &[(&str, &str, &str, Value)]) {
    for (file, words, path, expected) in cases {
        let project = Project::new(file);
        let run = project.resolve(command, words).run;
        assert_eq!(
            at(&run, path, project.host.folder()),
            *expected,
            "{path} of file {file:?} and words {words:?}"
        );
    }
}

#[test]
fn precedence_is_default_then_file_then_command_line() {
    check(
        Command::Train,
        &[
            ("", "", "train.seed", json!(42)),
            ("seed = 7", "", "train.seed", json!(7)),
            ("seed = 7", "--seed 9", "train.seed", json!(9)),
            (
                "label_names = [\"a\", \"b\"]",
                "--label_names c",
                "model.label_names",
                json!(["c"]),
            ),
            ("label-names = \"a\"", "", "model.label_names", json!(["a"])),
            ("seed = 0x10", "", "train.seed", json!(16)),
            ("max_steps = 1_000", "", "train.max_steps", json!(1000)),
            (
                "dataloader_drop_last = true",
                "--dataloader_drop_last no",
                "data.drop_last",
                json!(false),
            ),
        ],
    );
}

#[test]
fn paths_are_absolute_and_start_at_their_source() {
    check(
        Command::Train,
        &[
            ("", "", "output_dir", json!("~/new")),
            ("", "--output_dir a/./b", "output_dir", json!("~/a/b")),
            (
                "",
                "--train_file train.jsonl --train_file more.jsonl",
                "data.train_files",
                json!(["~/train.jsonl", "~/more.jsonl"]),
            ),
            (
                "validation_file = [\"valid.jsonl\", \"more.jsonl\"]",
                "",
                "data.validation_sets",
                json!([{"name": "", "files": ["~/valid.jsonl", "~/more.jsonl"]}]),
            ),
            (
                "validation_file = [\"a=valid.jsonl\", \"b=more.jsonl\", \"a=test.jsonl\"]",
                "",
                "data.validation_sets",
                json!([
                    {"name": "a", "files": ["~/valid.jsonl", "~/test.jsonl"]},
                    {"name": "b", "files": ["~/more.jsonl"]},
                ]),
            ),
            (
                "",
                "--model module.pt --trust_model_code",
                "model.path",
                json!("~/module.pt"),
            ),
            (
                "",
                "--model module.pt --trust_model_code",
                "model.torchscript",
                json!(true),
            ),
            ("", "", "model.torchscript", json!(false)),
            (
                "",
                "--record_steps steps.jsonl",
                "logging.record_steps",
                json!("~/steps.jsonl"),
            ),
        ],
    );
}

#[test]
fn data_of_other_commands_need_not_exist() {
    check(
        Command::Evaluate,
        &[(
            "test_file = \"gone.jsonl\"",
            "--validation_file valid.jsonl --train_file gone.jsonl",
            "do_eval",
            json!(true),
        )],
    );
}

#[test]
fn home_is_expanded() {
    let project = Project::new("logging_dir = \"~/logs\"");
    let run = project
        .resolve(
            Command::Evaluate,
            "--output_dir ~/results --validation_file valid.jsonl",
        )
        .run;
    assert_eq!(run.output_dir, Path::new("/home/ada/results"));
}

#[test]
fn absent_values_follow_from_others() {
    check(
        Command::Train,
        &[
            ("", "", "num_threads", json!(4)),
            ("", "--num_threads 2", "num_threads", json!(2)),
            ("", "--max_steps 0", "train.max_steps", Value::Null),
            (
                "",
                "--max_steps 5 --num_train_epochs 0",
                "train.max_steps",
                json!(5),
            ),
            ("", "--max_grad_norm 0", "train.max_grad_norm", Value::Null),
            (
                "",
                "--max_grad_norm none",
                "train.max_grad_norm",
                Value::Null,
            ),
            (
                "",
                "--max_grad_norm inf",
                "train.max_grad_norm",
                Value::Null,
            ),
            (
                "",
                "--save_total_limit 0",
                "saving.total_limit",
                Value::Null,
            ),
            ("", "--save_total_limit 2", "saving.total_limit", json!(2)),
            ("", "--save_steps 0", "saving.steps", json!(0.0)),
            ("", "--logging_steps 10.0", "logging.steps", json!(10.0)),
            ("", "--eval_delay none", "evaluation.delay", json!(0.0)),
            ("", "", "evaluation.steps", json!(500.0)),
            (
                "validation_file = \"valid.jsonl\"",
                "--eval_strategy steps --logging_steps 20",
                "evaluation.steps",
                json!(20.0),
            ),
            (
                "validation_file = \"valid.jsonl\"",
                "--eval_strategy steps --eval_steps 0.25",
                "evaluation.steps",
                json!(0.25),
            ),
            ("", "", "logging.disable_tqdm", json!(false)),
            ("", "--log_level error", "logging.disable_tqdm", json!(true)),
            (
                "",
                "--log_level error --disable_tqdm no",
                "logging.disable_tqdm",
                json!(false),
            ),
        ],
    );
}

/// Row 68, of what is allowed; what is not is in `tests/cli/errors.rs`.
#[test]
fn the_best_model_is_told_by_a_metric_and_its_direction() {
    let tracked = "--validation_file valid.jsonl --evaluation_strategy epoch --save_strategy epoch --load_best_model_at_end";
    let named = |metric: &str| format!("{tracked} --metric_for_best_model {metric}");
    check(
        Command::Train,
        &[
            ("", "", "evaluation.metric_for_best_model", Value::Null),
            (
                "",
                tracked,
                "evaluation.metric_for_best_model",
                json!("loss"),
            ),
            ("", tracked, "evaluation.greater_is_better", json!(false)),
            (
                "",
                &named("eval_loss"),
                "evaluation.greater_is_better",
                json!(false),
            ),
            (
                "",
                &named("valid_loss"),
                "evaluation.greater_is_better",
                json!(false),
            ),
            (
                "",
                &named("accuracy"),
                "evaluation.greater_is_better",
                json!(true),
            ),
            (
                "",
                &format!("{} --greater_is_better no", named("accuracy")),
                "evaluation.greater_is_better",
                json!(false),
            ),
            (
                "",
                &format!("{tracked} --early_stopping_patience 3"),
                "evaluation.early_stopping_patience",
                json!(3),
            ),
            (
                "",
                "--validation_file valid.jsonl --evaluation_strategy epoch --lr_scheduler_type reduce_lr_on_plateau",
                "evaluation.metric_for_best_model",
                json!("loss"),
            ),
            (
                "",
                "--validation_file valid.jsonl --evaluation_strategy steps --eval_steps 0.02 --save_steps 0.06 --load_best_model_at_end",
                "saving.steps",
                json!(0.06),
            ),
        ],
    );
}

#[test]
fn deprecated_arguments_take_effect_through_their_successors() {
    check(
        Command::Train,
        &[
            (
                "",
                "--adafactor --optim sgd",
                "optimizer.name",
                json!("adafactor"),
            ),
            (
                "",
                "--per_gpu_train_batch_size 3",
                "train.batch_size",
                json!(3),
            ),
            (
                "",
                "--per_gpu_eval_batch_size 5",
                "evaluation.batch_size",
                json!(5),
            ),
            ("", "--no_cuda", "arguments.use_cpu", json!(true)),
            ("", "--max_seq_length 64", "data.max_length", json!(64)),
        ],
    );
}

#[test]
fn settings_of_optimizer_and_schedule_arrive_with_their_types() {
    let anyprecision =
        "--optim adamw_anyprecision --optim_args use_kahan_summation=True,variance_dtype=bfloat16";
    check(
        Command::Train,
        &[
            ("", "", "optimizer.args", json!({})),
            ("", "", "optimizer.lr_scheduler_kwargs", json!({})),
            (
                "",
                anyprecision,
                "optimizer.args",
                json!({"use_kahan_summation": true, "variance_dtype": "bfloat16"}),
            ),
            (
                "lr_scheduler_type = \"polynomial\"\nlr_scheduler_kwargs = \"power=2\"",
                "",
                "optimizer.lr_scheduler_kwargs",
                json!({"power": 2.0}),
            ),
            (
                "",
                "--lr_scheduler_type inverse_sqrt --lr_scheduler_kwargs timescale=7",
                "optimizer.lr_scheduler_kwargs",
                json!({"timescale": 7}),
            ),
        ],
    );
    let project = Project::new("");
    let notes = project
        .resolve(Command::Train, "--optim schedule_free_adamw")
        .notes;
    assert!(
        notes.iter().any(|note| note.contains("constant is usual")),
        "{notes:?}"
    );
}

#[test]
fn what_happens_after_training_follows_from_flags_and_files() {
    check(
        Command::Train,
        &[
            ("", "", "do_eval", json!(false)),
            ("", "--validation_file valid.jsonl", "do_eval", json!(true)),
            (
                "",
                "--validation_file valid.jsonl --do_eval no",
                "do_eval",
                json!(false),
            ),
            (
                "",
                "--validation_file valid.jsonl --do_eval no --eval_strategy epoch",
                "do_eval",
                json!(true),
            ),
            ("", "--test_file test.jsonl", "do_predict", json!(false)),
            (
                "",
                "--test_file test.jsonl --do_predict",
                "do_predict",
                json!(true),
            ),
        ],
    );
    check(
        Command::Evaluate,
        &[(
            "validation_file = \"valid.jsonl\"",
            "--do_predict",
            "do_predict",
            json!(false),
        )],
    );
    check(
        Command::Predict,
        &[("", "--test_file test.jsonl", "do_predict", json!(true))],
    );
}

#[test]
fn resuming_takes_a_boolean_or_a_folder() {
    check(
        Command::Train,
        &[
            ("", "", "train.resume", json!("no")),
            (
                "",
                "--resume_from_checkpoint false",
                "train.resume",
                json!("no"),
            ),
            (
                "",
                "--output_dir out --resume_from_checkpoint true",
                "train.resume",
                json!("latest"),
            ),
            (
                "resume_from_checkpoint = true",
                "--output_dir out",
                "train.resume",
                json!("latest"),
            ),
            (
                "resume_from_checkpoint = \"out/checkpoint-5\"",
                "",
                "train.resume",
                json!({"from": "~/out/checkpoint-5"}),
            ),
        ],
    );
    check(
        Command::Evaluate,
        &[(
            "resume_from_checkpoint = true",
            "--validation_file valid.jsonl",
            "train.resume",
            json!("no"),
        )],
    );
}

#[test]
fn plugins_of_file_and_command_line_are_joined() {
    let file = "[[plugins]]\npath = \"f1.wasm\"\nconfig = { average = \"macro\", top = 3 }\ngrant = [\"clock\"]\n";
    check(
        Command::Train,
        &[
            ("", "", "plugins", json!([])),
            (file, "--no_plugins", "plugins", json!([])),
            (
                file,
                "--plugin sub/f1.wasm --plugin_config f1-2.average=micro --plugin_config f1.top=[1,2] \
             --plugin_limit f1-2.memory=64MiB --plugin_grant f1-2.net:https://example.org",
                "plugins",
                json!([
                    {"path": "~/f1.wasm", "name": "f1", "config": {"average": "macro", "top": [1, 2]}, "limits": {}, "grants": ["clock"]},
                    {"path": "~/sub/f1.wasm", "name": "f1-2", "config": {"average": "micro"}, "limits": {"memory": "64MiB"}, "grants": ["net:https://example.org"]},
                ]),
            ),
            (
                "plugin = [\"f1.wasm\"]",
                "",
                "plugins",
                json!([{"path": "~/f1.wasm", "name": "f1", "config": {}, "limits": {}, "grants": []}]),
            ),
        ],
    );
}

#[test]
fn published_arguments_are_those_in_effect_with_secrets_masked() {
    check(
        Command::Train,
        &[
            ("", "", "arguments.hub_token", json!("<HUB_TOKEN>")),
            (
                "",
                "",
                "arguments.push_to_hub_token",
                json!("<PUSH_TO_HUB_TOKEN>"),
            ),
            ("", "", "arguments.learning_rate", json!(5e-5)),
            ("", "", "arguments.logging_steps", json!(500)),
            ("", "", "arguments.save_safetensors", json!(true)),
            ("", "", "arguments.do_train", json!(true)),
            ("", "", "arguments.report_to", json!([])),
            ("", "--report_to all", "arguments.report_to", json!([])),
            ("", "--output_dir new", "arguments.run_name", json!("new")),
            (
                "",
                "--output_dir new",
                "arguments.logging_dir",
                json!("new/runs/Jan01_00-00-00_box"),
            ),
            (
                "",
                "--plugin f1.wasm --plugin_config f1.api_key=abc",
                "arguments.plugin_config",
                json!(["f1.api_key=<SECRET>"]),
            ),
        ],
    );
}

#[test]
fn a_run_survives_the_way_to_the_engine() {
    let project = Project::new("");
    let run = project
        .resolve(
            Command::Train,
            "--learning_rate 3e-5 --adam_epsilon 1e-300 --warmup_ratio 0.1",
        )
        .run;
    let text = serde_json::to_string(&run).expect("JSON");
    assert_eq!(serde_json::from_str::<Run>(&text).expect("a run"), run);
}

#[test]
fn a_saved_run_holds_no_secret() {
    let project = Project::new("");
    let words = "--plugin f1.wasm --plugin_config f1.api_key=abc --plugin_config f1.top=3";
    let run = project.resolve(Command::Train, words).run;
    assert_eq!(run.plugins[0].config["api_key"], "abc");
    let saved = &run.published().plugins[0].config;
    assert_eq!(
        (&saved["api_key"], &saved["top"]),
        (&json!("<SECRET>"), &json!(3))
    );
}
