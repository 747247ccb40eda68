//! Errors of the command line: one message with everything that is wrong, and the exit code.

use std::fs;

use crate::support::{Ended, Host, Requirement, in_namespaces, requires};

const USAGE: Option<i32> = Some(2);
const POLICY: Option<i32> = Some(64);

/// A folder with a model, data and a plugin that pass the checks of `host`.
fn project() -> Host {
    let host = Host::new();
    host.write("model/config.json", "{}");
    host.write("train.jsonl", "{}\n");
    host.write("valid.jsonl", "{}\n");
    host.write("f1.wasm", "");
    host.write("module.pt", "");
    host
}

const COMPLETE: &str =
    "train --model model --train_file train.jsonl --validation_file valid.jsonl --output_dir out";

/// The lines of the error after `error: `, without indentation.
fn findings(ended: &Ended) -> Vec<&str> {
    let text = ended
        .stderr
        .strip_prefix("error: ")
        .unwrap_or_else(|| panic!("no error: {}", ended.stderr));
    text.lines()
        .filter(|line| !line.ends_with(" problems:"))
        .map(str::trim)
        .collect()
}

fn check(host: &Host, line: &str, expected: &[&str]) {
    let ended = host.run(line);
    assert_eq!(findings(&ended), expected, "{line}");
    assert_eq!((ended.code, ended.stdout.as_str()), (USAGE, ""), "{line}");
}

#[test]
fn all_findings_are_in_one_message() {
    let line = "train --lerning_rate 1 --seed x --max_length 0 --warmup_ratio 2 --evaluation_strategy stpes --load_best_model_at_end";
    check(
        &project(),
        line,
        &[
            "unknown argument `--lerning_rate`; did you mean `--learning_rate`?",
            "seed: expected an integer, found `x`",
            "evaluation_strategy: `stpes` is not a choice (did you mean `steps`?); use one of no, steps, epoch",
            "max_length: 0 is too small; give a number of at least 1",
            "warmup_ratio: 2 is out of range; give a number from 0 to 1",
        ],
    );
}

/// Layers that are not this program's cannot be recomputed or watched.
#[test]
fn what_only_native_architectures_can_is_refused_for_others() {
    let text = "needs a native architecture, and the model is a TorchScript file, whose layers are its own; leave it out";
    check(
        &project(),
        &format!(
            "{COMPLETE} --model module.pt --trust_model_code --gradient_checkpointing --debug underflow_overflow"
        ),
        &[
            &format!("gradient_checkpointing: {text}"),
            &format!("debug: {text}"),
        ],
    );
}

/// Fields 84 and 87 to 89: what compiles in Python is refused with what there is instead.
#[test]
fn compilation_is_refused_where_the_model_has_no_compiled_form() {
    let inductor = "inductor compiles in Python: make an AOT package of the model there \
                    (torch._inductor.aoti_compile_and_package) and give it to `host evaluate` or `host predict`, or leave it out";
    let script =
        "ts fuses operations of TorchScript files, and the model is a native model; leave it out";
    let cases = [
        ("--torch_compile", format!("torch_compile: {inductor}")),
        ("--torch_compile_mode default", format!("torch_compile_mode: {inductor}")),
        ("--torch_compile_backend inductor", format!("torch_compile_backend: {inductor}")),
        ("--torch_compile_backend ts", format!("torch_compile_backend: {script}")),
        ("--torchdynamo ts", format!("torchdynamo: {script}")),
        (
            "--model module.pt --trust_model_code --torch_compile_backend inductor",
            format!("torch_compile_backend: {inductor}"),
        ),
        (
            "--torch_compile_mode max-autotune",
            "torch_compile_mode: `max-autotune` is refused: it is a mode of inductor, to be chosen where an AOT package is made; \
             use one of default"
                .to_owned(),
        ),
        (
            "--torch_compile_backend onnxrt",
            "torch_compile_backend: `onnxrt` is refused: it compiles in Python, which this program does without; use one of \
             eager, ts, inductor"
                .to_owned(),
        ),
        (
            "--torch_compile_backend cudagraphs",
            "torch_compile_backend: `cudagraphs` is not available yet: it needs a GPU to try it on; use one of eager, ts, \
             inductor"
                .to_owned(),
        ),
    ];
    let host = project();
    for (line, expected) in cases {
        check(&host, &format!("{COMPLETE} {line}"), &[&expected]);
    }
}

/// An AOT package is machine code without gradients.
#[test]
fn packages_are_evaluated_and_not_trained() {
    let host = project();
    host.write("m.pt2", "");
    check(
        &host,
        &format!("{COMPLETE} --model m.pt2 --trust_model_code"),
        &[
            "model: is an AOT package, which computes no gradients; train the model that it was made of, then evaluate and predict with the package",
        ],
    );
    let evaluate = "evaluate --model m.pt2 --validation_file valid.jsonl --output_dir out";
    let needs = "needs a model that can be cast, and the type of an AOT package was fixed when it was made; leave it out";
    check(
        &host,
        &format!(
            "{evaluate} --trust_model_code --bf16 --bf16_full_eval --jit_mode_eval --torch_compile_backend ts"
        ),
        &[
            &format!("bf16: {needs}"),
            &format!("bf16_full_eval: {needs}"),
            "jit_mode_eval: freezes a model, and an AOT package is frozen already; leave it out",
            "torch_compile_backend: ts fuses operations of TorchScript files, and the model is an AOT package; leave it out",
        ],
    );
    let ended = host.run(evaluate);
    assert_eq!(ended.code, POLICY);
    let expected = "model: `m.pt2` is an AOT package, which is code and can do whatever you can do; add --trust_model_code if you trust it";
    assert_eq!(findings(&ended), [expected]);
}

/// Row 66: a missing device does not hide that two arguments exclude each other.
#[test]
fn half_precision_is_checked_as_a_whole() {
    check(
        &project(),
        &format!("{COMPLETE} --bf16 --fp16 --bf16_full_eval --fp16_full_eval --tf32 true"),
        &[
            "bf16: excludes fp16: a run has one kind of autocast; leave one of them out",
            "bf16_full_eval: excludes fp16_full_eval: an evaluation has one type; leave one of them out",
            "fp16: float16 can only be used on a GPU, and this run is on the CPU; use bf16",
            "fp16_full_eval: float16 can only be used on a GPU, and this run is on the CPU; use bf16_full_eval",
            "tf32: TF32 can only be used on a GPU, and this run is on the CPU; leave it out",
        ],
    );
}

#[test]
fn what_is_missing_is_named() {
    let host = project();
    let output = "output_dir: is missing; give a folder for checkpoints and results";
    let model =
        "model: is missing; give a model folder, OWNER/NAME on the Hub, or a TorchScript file";
    check(
        &host,
        "train",
        &[
            model,
            "train_file: is missing; give the file to train on",
            output,
        ],
    );
    check(
        &host,
        "evaluate",
        &[
            model,
            "validation_file: is missing; give the file to evaluate on",
            output,
        ],
    );
    check(
        &host,
        "eval",
        &[
            model,
            "validation_file: is missing; give the file to evaluate on",
            output,
        ],
    );
    check(
        &host,
        "predict",
        &[
            model,
            "test_file: is missing; give the file to predict",
            output,
        ],
    );
}

/// Each with otherwise correct arguments, so that there is exactly one finding.
const REFUSALS: &[(&str, &str)] = &[
    // Form.
    (
        "--learnign-rate 1",
        "unknown argument `--learnign-rate`; did you mean `--learning_rate`?",
    ),
    (
        "--zzzzzzzz",
        "unknown argument `--zzzzzzzz`; `host args` lists all",
    ),
    (
        "--seed 1 stray",
        "unexpected word `stray`; it belongs to no argument",
    ),
    (
        "-x",
        "unknown argument `-x`; arguments begin with two dashes",
    ),
    ("--seed", "seed: has no value; give it an integer"),
    ("--seed 1.5", "seed: expected an integer, found `1.5`"),
    (
        "--learning_rate fast",
        "learning_rate: expected a number, found `fast`",
    ),
    (
        "--group_by_length=maybe",
        "group_by_length: expected a boolean (true or false), found `maybe`",
    ),
    (
        "--label_names",
        "label_names: has no value; give it one or more",
    ),
    // Values.
    (
        "--seed -1",
        "seed: -1 is out of range; give a number from 0 to 4294967295",
    ),
    (
        "--data_seed -1",
        "data_seed: -1 is negative; give a number of at least 0",
    ),
    (
        "--learning_rate nan",
        "learning_rate: NaN is out of range; give a finite number of at least 0",
    ),
    (
        "--learning_rate inf",
        "learning_rate: inf is out of range; give a finite number of at least 0",
    ),
    (
        "--weight_decay -0.1",
        "weight_decay: -0.1 is out of range; give a finite number of at least 0",
    ),
    (
        "--adam_beta1 1",
        "adam_beta1: 1 is out of range; give a number of at least 0 and below 1",
    ),
    (
        "--adam_beta2 -1",
        "adam_beta2: -1 is out of range; give a number of at least 0 and below 1",
    ),
    (
        "--adam_epsilon -1",
        "adam_epsilon: -1 is out of range; give a finite number of at least 0",
    ),
    (
        "--label_smoothing_factor 1",
        "label_smoothing_factor: 1 is out of range; give a number of at least 0 and below 1",
    ),
    (
        "--warmup_ratio 1.5",
        "warmup_ratio: 1.5 is out of range; give a number from 0 to 1",
    ),
    (
        "--warmup_ratio -.1",
        "warmup_ratio: -0.1 is out of range; give a number from 0 to 1",
    ),
    (
        "--warmup_steps -1",
        "warmup_steps: -1 is negative; give a number of at least 0",
    ),
    (
        "--num_train_epochs 0",
        "num_train_epochs: 0 epochs train nothing; give a finite number above 0, or max_steps",
    ),
    (
        "--max_grad_norm nan",
        "max_grad_norm: is not a number; give a number, or none to leave gradients as they are",
    ),
    (
        "--eval_delay -1",
        "eval_delay: -1 is out of range; give a finite number of at least 0",
    ),
    (
        "--per_device_train_batch_size 0",
        "per_device_train_batch_size: 0 is too small; give a number of at least 1",
    ),
    (
        "--per_device_eval_batch_size -2",
        "per_device_eval_batch_size: -2 is too small; give a number of at least 1",
    ),
    (
        "--gradient_accumulation_steps 0",
        "gradient_accumulation_steps: 0 is too small; give a number of at least 1",
    ),
    (
        "--eval_accumulation_steps 0",
        "eval_accumulation_steps: 0 is too small; give a number of at least 1",
    ),
    (
        "--pad_to_multiple_of 0",
        "pad_to_multiple_of: 0 is too small; give a number of at least 1",
    ),
    (
        "--max_train_samples 0",
        "max_train_samples: 0 is too small; give a number of at least 1",
    ),
    (
        "--num_threads 0",
        "num_threads: 0 is out of range; give a number from 1 to 1024",
    ),
    // Choices.
    (
        "--save_strategy never",
        "save_strategy: `never` is not a choice; use one of no, steps, epoch",
    ),
    (
        "--lr_scheduler_type peacewise",
        "lr_scheduler_type: `peacewise` is not a choice (did you mean `piecewise`?); use one of linear, cosine, cosine_with_restarts, \
         polynomial, constant, constant_with_warmup, inverse_sqrt, reduce_lr_on_plateau, piecewise, exponential, cosine_with_min_lr, \
         warmup_stable_decay",
    ),
    (
        "--optim adamw_torch_xla",
        "optim: `adamw_torch_xla` is refused: it needs an XLA device, and libtorch has none; use one of adamw_torch, adamw_torch_fused, sgd, adafactor, adamw_hf, \
         adamw_apex_fused, adamw_anyprecision, adagrad, rmsprop, lion_32bit, adamw_bnb_8bit, adamw_8bit, paged_adamw_32bit, paged_adamw_8bit, \
         lion_8bit, paged_lion_32bit, paged_lion_8bit, muon, schedule_free_adamw, stable_adamw",
    ),
    (
        "--optim adamm_torch",
        "optim: `adamm_torch` is not a choice (did you mean `adamw_torch`?); use one of adamw_torch, adamw_torch_fused, sgd, adafactor, adamw_hf, \
         adamw_apex_fused, adamw_anyprecision, adagrad, rmsprop, lion_32bit, adamw_bnb_8bit, adamw_8bit, paged_adamw_32bit, paged_adamw_8bit, \
         lion_8bit, paged_lion_32bit, paged_lion_8bit, muon, schedule_free_adamw, stable_adamw",
    ),
    // Settings of optimizers and schedules.
    (
        "--optim_args momentum=0.9",
        "optim_args: adamw_torch has no `momentum` (muon does); it has no settings; leave them out",
    ),
    (
        "--optim adamw_anyprecision --optim_args use_kahan_summation",
        "optim_args: `use_kahan_summation` is not key=value",
    ),
    (
        "--optim adamw_anyprecision --optim_args momentum_dtype=int8",
        "optim_args: momentum_dtype `int8` is not one of float32, float, bfloat16, float16, half, float64, double",
    ),
    (
        "--optim adamw_anyprecision --optim_args kahan=1",
        "optim_args: adamw_anyprecision has no `kahan`; it has use_kahan_summation, momentum_dtype, variance_dtype, \
         compensation_buffer_dtype",
    ),
    (
        "--optim schedule_free_adamw --adam_beta1 0",
        "adam_beta1: schedule_free_adamw needs an adam_beta1 above 0; give one, such as 0.9",
    ),
    (
        "--lr_scheduler_kwargs num_cycles=2",
        "lr_scheduler_kwargs: linear has no `num_cycles` (cosine, cosine_with_restarts, cosine_with_min_lr, warmup_stable_decay do); it \
         has no settings; leave them out",
    ),
    (
        "--lr_scheduler_type polynomial --lr_scheduler_kwargs {\"power\":[2]}",
        "lr_scheduler_kwargs: power `[2]` is not a finite number of at least 0",
    ),
    (
        "--lr_scheduler_type polynomial --lr_scheduler_kwargs lr_end=1",
        "lr_scheduler_type: polynomial ends at a rate of 1e0, so learning_rate 5e-5 is too small; give a larger one",
    ),
    (
        "--lr_scheduler_type piecewise",
        "lr_scheduler_kwargs: piecewise needs a rule; give one, such as rule=1:10,0.1:20,0.01",
    ),
    (
        "--lr_scheduler_type warmup_stable_decay",
        "lr_scheduler_kwargs: warmup_stable_decay needs num_decay_steps; give it, such as num_decay_steps=100",
    ),
    (
        "--lr_scheduler_type cosine_with_min_lr --lr_scheduler_kwargs min_lr=0,min_lr_rate=0",
        "lr_scheduler_kwargs: cosine_with_min_lr needs either min_lr or min_lr_rate; give one of them",
    ),
    (
        "--lr_scheduler_type exponential --lr_scheduler_kwargs gamma=0.9,final_ratio=0.1",
        "lr_scheduler_kwargs: exponential takes final_ratio or gamma; give one of them",
    ),
    (
        "--dtype float16",
        "dtype: `float16` is not available yet: it needs a GPU to try it on; use one of float32, float64, bfloat16",
    ),
    (
        "--on_nonfinite ignore",
        "on_nonfinite: `ignore` is not a choice; use one of warn, skip, stop",
    ),
    (
        "--on_disk_full pause",
        "on_disk_full: `pause` is not a choice; use one of continue, stop",
    ),
    // Half precision: what excludes what, and what needs a GPU.
    (
        "--fp16",
        "fp16: float16 can only be used on a GPU, and this run is on the CPU; use bf16",
    ),
    (
        "--fp16_full_eval",
        "fp16_full_eval: float16 can only be used on a GPU, and this run is on the CPU; use bf16_full_eval",
    ),
    (
        "--tf32 true",
        "tf32: TF32 can only be used on a GPU, and this run is on the CPU; leave it out",
    ),
    (
        "--bf16 --half_precision_backend apex",
        "half_precision_backend: apex knows no bfloat16; leave it out",
    ),
    (
        "--bf16 --fp16_backend apex",
        "half_precision_backend: apex knows no bfloat16; leave it out",
    ),
    (
        "--bf16 --dtype float64",
        "bf16: autocast leaves float64 as it is; use dtype float32, or leave bf16 out",
    ),
    (
        "--debug underflow",
        "debug: `underflow` is not a choice; use underflow_overflow",
    ),
    (
        "--debug tpu_metrics_debug",
        "debug: tpu_metrics_debug is refused: libtorch has no TPU device; use underflow_overflow",
    ),
    // What is not honoured.
    (
        "--ddp_timeout 60",
        "ddp_timeout: not available yet: it needs training with several processes; leave it out",
    ),
    (
        "--tpu_num_cores 8",
        "tpu_num_cores: refused: libtorch has no TPU device; leave it out",
    ),
    (
        "--ddp_timeout 60",
        "ddp_timeout: not available yet: it needs training with several processes; leave it out",
    ),
    (
        "--save_safetensors false",
        "save_safetensors: false is refused: weights are always safetensors; leave it out",
    ),
    (
        "--report_to wandb",
        "report_to: `wandb` is not installed: reporters are plugins; give it with --plugin, or use none",
    ),
    (
        "--report_to tensorbord",
        "report_to: `tensorbord` is not a reporter (did you mean `tensorboard`?); use none",
    ),
    (
        "--report_to none wandb",
        "report_to: `none` cannot stand beside other names; use it alone",
    ),
    // Intervals.
    (
        "--logging_steps 0",
        "logging_steps: 0 with logging_strategy steps; give at least 1, or set logging_strategy to no",
    ),
    (
        "--logging_steps 2.5",
        "logging_steps: 2.5 is above 1 and not whole; give whole steps, or a share of all steps below 1",
    ),
    (
        "--save_steps 3.5",
        "save_steps: 3.5 is above 1 and not whole; give whole steps, or a share of all steps below 1",
    ),
    (
        "--save_steps -1",
        "save_steps: -1 is out of range; give whole steps, or a share of all steps below 1",
    ),
    (
        "--evaluation_strategy steps --eval_steps 2.5",
        "eval_steps: 2.5 is above 1 and not whole; give whole steps, or a share of all steps below 1",
    ),
    (
        "--evaluation_strategy steps --logging_steps 0 --logging_strategy no",
        "eval_steps: evaluation_strategy steps needs eval_steps, and logging_steps is 0 too; give at least 1",
    ),
    (
        "--evaluation_strategy steps --logging_steps 2.5 --logging_strategy no",
        "eval_steps: is absent, and logging_steps 2.5 is not whole; give eval_steps",
    ),
    // Contradictions.
    (
        "--load_best_model_at_end",
        "load_best_model_at_end: needs the same save_strategy and evaluation_strategy, which are steps and no; set both alike",
    ),
    (
        "--load_best_model_at_end --evaluation_strategy steps --eval_steps 100 --save_steps 250",
        "load_best_model_at_end: needs save_steps that are a multiple of eval_steps; they are 250 and 100",
    ),
    (
        "--load_best_model_at_end --evaluation_strategy steps --eval_steps 0.1 --save_steps 100",
        "load_best_model_at_end: save_steps 100 and eval_steps 0.1 mix a share of all steps with steps; give both as the same",
    ),
    (
        "--load_best_model_at_end --evaluation_strategy steps --eval_steps 0.2 --save_steps 0.3",
        "load_best_model_at_end: needs save_steps that are a multiple of eval_steps; they are 0.3 and 0.2",
    ),
    (
        "--lr_scheduler_type reduce_lr_on_plateau",
        "lr_scheduler_type: reduce_lr_on_plateau needs evaluations during training; set evaluation_strategy to steps or epoch",
    ),
    (
        "--lr_scheduler_type inverse_sqrt",
        "lr_scheduler_type: inverse_sqrt needs warming up, which sets its scale; give warmup_steps or warmup_ratio",
    ),
    (
        "--lr_scheduler_type polynomial --learning_rate 1e-7",
        "lr_scheduler_type: polynomial ends at a rate of 1e-7, so learning_rate 1e-7 is too small; give a larger one",
    ),
    (
        "--lr_scheduler_type polynomial --warmup_steps 5 --max_steps 5",
        "lr_scheduler_type: polynomial needs steps after warming up; give fewer warmup_steps or more max_steps",
    ),
    (
        "--early_stopping_patience 2 --load_best_model_at_end --save_strategy no",
        "early_stopping_patience: needs evaluations during training; set evaluation_strategy to steps or epoch",
    ),
    (
        "--early_stopping_patience 2 --evaluation_strategy epoch",
        "early_stopping_patience: needs load_best_model_at_end; set it too",
    ),
    (
        "--early_stopping_threshold 0.1",
        "early_stopping_threshold: has no effect without early_stopping_patience; give it too",
    ),
    (
        "--do_predict",
        "test_file: is missing, but do_predict is set; give the file to predict",
    ),
    (
        "--do_train no",
        "do_train: is false, but the command is train; use `host evaluate` or `host predict`",
    ),
    // The Hub.
    (
        "--push_to_hub",
        "push_to_hub: needs a token that may write; set HF_TOKEN, or log in with `hf auth login`",
    ),
    (
        "--push_to_hub --hub_token hf_x --hub_model_id a/b/c",
        "hub_model_id: `a/b/c` cannot be a repository; give hub_model_id as OWNER/NAME, of letters, digits, -, _ and .",
    ),
    (
        "--hub_token \u{e9}",
        "hub_token: is no token: it holds blanks or other signs; check how it was written",
    ),
    (
        "--hub_strategy every",
        "hub_strategy: `every` is not a choice (did you mean `every_save`?); use one of end, every_save, checkpoint, all_checkpoints",
    ),
    (
        "--model_revision v1",
        "model_revision: is for a model on the Hub, and the model is a local one; leave it out",
    ),
    (
        "--model acme/x --model_revision a..b",
        "model_revision: `a..b` is no branch, tag or commit; check how it was written",
    ),
    (
        "--train_file hf://datasets/acme/x",
        "train_file: `hf://datasets/acme/x` is no file of a data set; write hf://datasets/OWNER/NAME[@REVISION]/PATH",
    ),
    // Files.
    (
        "--model nowhere",
        "model: `nowhere` does not exist; give a model folder, or OWNER/NAME for one on the Hub",
    ),
    (
        "--model .",
        "model: `.` is a folder without config.json; give a folder that holds a model",
    ),
    (
        "--model train.jsonl",
        "model: `train.jsonl` is neither a model folder nor a TorchScript file (.pt) nor an AOT package (.pt2); give the folder it lies in",
    ),
    (
        "--tokenizer_name nowhere",
        "tokenizer_name: `nowhere` does not exist; give a folder with a tokenizer",
    ),
    (
        "--tokenizer_name f1.wasm",
        "tokenizer_name: `f1.wasm` is a file; give the folder it lies in",
    ),
    (
        "--test_file a.csv",
        "test_file: `a.csv` does not exist; check the path",
    ),
    (
        "--test_file model",
        "test_file: `model` is a folder; give a file",
    ),
    (
        "--output_dir train.jsonl",
        "output_dir: `train.jsonl` is a file; choose another folder",
    ),
    (
        "--plugin f2.wasm",
        "plugin: `f2.wasm` does not exist; check the path",
    ),
    (
        "--plugin_config f1.average=macro",
        "plugin_config: no plugin is named `f1`; give the plugin with --plugin",
    ),
    (
        "--plugin f1.wasm --plugin_config f2.average=macro",
        "plugin_config: no plugin is named `f2`; did you mean `f1`?",
    ),
    (
        "--plugin f1.wasm --plugin_config average=macro",
        "plugin_config: `average=macro` has not the form NAME.key=value",
    ),
    (
        "--resume_from_checkpoint true",
        "resume_from_checkpoint: is true, but output_dir holds no checkpoint; leave it out to begin anew",
    ),
    (
        "--resume_from_checkpoint checkpoint-5",
        "resume_from_checkpoint: `checkpoint-5` does not exist; give a checkpoint folder, or true for the newest",
    ),
    (
        "--resume_from_checkpoint model",
        "resume_from_checkpoint: `model` holds no weights; give a folder named checkpoint-<step>",
    ),
];

/// Rows 66 to 69: every contradiction of the reference's constructor, and those of this program.
#[test]
fn every_refusal_has_its_message() {
    let host = project();
    for (arguments, expected) in REFUSALS {
        check(&host, &format!("{COMPLETE} {arguments}"), &[expected]);
    }
    assert!(!host.path("out").exists(), "something was written");
}

#[test]
fn evaluation_needs_a_file() {
    let host = project();
    let line = "train --model model --train_file train.jsonl --output_dir out";
    let remedy = "give the file to evaluate on";
    check(
        &host,
        &format!("{line} --evaluation_strategy epoch"),
        &[&format!(
            "validation_file: is missing, but evaluation_strategy is epoch; {remedy}, or set evaluation_strategy to no"
        )],
    );
    check(
        &host,
        &format!("{line} --do_eval"),
        &[&format!(
            "validation_file: is missing, but do_eval is set; {remedy}"
        )],
    );
}

#[test]
fn code_needs_a_grant() {
    let host = project();
    let line = format!("{COMPLETE} --model module.pt");
    let ended = host.run(&line);
    let expected = "model: `module.pt` is a TorchScript file, which is code and can do whatever you can do; add --trust_model_code if you trust it";
    assert_eq!((findings(&ended), ended.code), (vec![expected], POLICY));
    // With another finding the line is wrong, whatever is granted.
    assert_eq!(host.run(&format!("{line} --seed -1")).code, USAGE);
}

#[test]
fn results_of_an_earlier_run_are_not_overwritten_unasked() {
    let host = project();
    host.write("out/.lock", "");
    host.write("out/run.json", "{}");
    host.write("out/training_args.json", "{}");
    assert!(
        !host.run(COMPLETE).stderr.contains("output_dir:"),
        "a run that failed early can be started again"
    );
    host.write("out/model.safetensors", "");
    check(
        &host,
        COMPLETE,
        &[
            "output_dir: `out` is not empty; add --overwrite_output_dir to write into it, or choose another folder",
        ],
    );
    host.write("out/checkpoint-20/model.safetensors", "");
    host.write("out/checkpoint-100/model.safetensors", "");
    let expected = "output_dir: `out` holds checkpoints of an earlier run up to checkpoint-100; add --resume_from_checkpoint true to go on from \
                    it, add --overwrite_output_dir to train anew, or choose another folder";
    check(&host, COMPLETE, &[expected]);
    for consent in [
        "--resume_from_checkpoint true",
        "--resume_from_checkpoint out/checkpoint-20",
        "--overwrite_output_dir",
    ] {
        let ended = host.run(&format!("{COMPLETE} {consent}"));
        assert!(
            !ended.stderr.contains("output_dir:"),
            "{consent}: {}",
            ended.stderr
        );
    }
}

#[test]
fn an_output_folder_must_be_possible() {
    let host = project();
    check(
        &host,
        &format!("{COMPLETE} --output_dir train.jsonl/out"),
        &[&format!(
            "output_dir: `train.jsonl/out` cannot be made, because `{}` is a file; choose another folder",
            host.folder()
                .canonicalize()
                .expect("the folder")
                .join("train.jsonl")
                .display()
        )],
    );
}

#[test]
fn an_output_folder_must_be_writable() {
    if !requires(Requirement::Namespaces) {
        return;
    }
    let host = project();
    // A file system that is read-only stops root too, unlike permissions.
    fs::create_dir(host.path("closed")).expect("a folder");
    let script = "mount -t tmpfs -o ro tmpfs closed && exec \"$@\" --output_dir closed/out";
    let mut command = in_namespaces(script, &[], &host.line(COMPLETE));
    let ended = command.output().expect("the program runs");
    let stderr = String::from_utf8(ended.stderr).expect("text");
    assert!(
        stderr.contains("closed` is not accessible: Read-only file system"),
        "{stderr}"
    );
    assert!(
        stderr.ends_with("; choose a folder you may write to\n"),
        "{stderr}"
    );
    assert_eq!(ended.status.code(), USAGE);
}

#[test]
fn errors_in_a_file_name_their_line() {
    let host = project();
    let cases = [
        (
            "seed = -1",
            &["run.toml:1: seed: -1 is out of range; give a number from 0 to 4294967295"][..],
        ),
        (
            "\n\nseed = \"1\"",
            &["run.toml:3: seed: expected an integer, found the string `1`"],
        ),
        (
            "seed = [1]",
            &["run.toml:1: seed: expected int, found array"],
        ),
        (
            "\nlerning_rate = 1",
            &["run.toml:2: unknown argument `lerning_rate`; did you mean `learning_rate`?"],
        ),
        (
            "[training]\nseed = 1",
            &[
                "run.toml:1: unknown table `training`; arguments stand at the top level of the file, without tables",
            ],
        ),
        (
            "bf16 = true\nfp16 = true",
            &[
                "run.toml:1: bf16: excludes fp16: a run has one kind of autocast; leave one of them out",
                "run.toml:2: fp16: float16 can only be used on a GPU, and this run is on the CPU; use bf16",
            ],
        ),
        (
            "plugins = 1",
            &["run.toml:1: plugins: expected tables, written as [[plugins]]"],
        ),
        (
            "[[plugins]]\nconfig = {}",
            &[
                "run.toml:1: plugins: `path` is missing; name the component file, or with `use` a plugin of the lock file",
            ],
        ),
        (
            "[[plugins]]\npath = \"f1.wasm\"\nname = 1",
            &[
                "run.toml:3: plugins: unknown key `name`; there are `path`, `use`, `config` and `grant`",
            ],
        ),
        (
            "[[plugins]]\npath = \"f1.wasm\"\nconfig = { x = nan }",
            &["run.toml:3: plugins.config: has a number that is not finite or too large"],
        ),
    ];
    for (text, expected) in cases {
        host.write("run.toml", text);
        check(
            &host,
            &COMPLETE.replacen("train ", "train run.toml ", 1),
            expected,
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_is_one_error() {
    let host = project();
    host.write("bad.toml", "seed = 1\nmodel = \n");
    let ended = host.run("train bad.toml");
    assert!(
        ended
            .stderr
            .starts_with("error: bad.toml:2: this is not TOML: "),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.code, USAGE);
    let ended = host.run("train absent.toml");
    assert!(
        ended
            .stderr
            .starts_with("error: the configuration file `absent.toml` cannot be read: "),
        "{}",
        ended.stderr
    );
    assert!(
        ended
            .stderr
            .contains("\nhint: the first word after the command is a TOML file;"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.code, USAGE);
}

#[test]
fn unknown_commands_are_errors() {
    let ended = Host::new().run("trian");
    assert!(
        ended
            .stderr
            .starts_with("error: unrecognized subcommand 'trian'"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("'train'"), "{}", ended.stderr);
    assert_eq!(ended.code, USAGE);
}

#[test]
fn no_text_from_outside_reaches_the_terminal_raw() {
    let host = project();
    let mut command = host.command("train");
    command.args([
        "--\u{1b}[2J",
        "x\u{7}y",
        "--model",
        "m\u{1b}]0;title\u{7}\r\nz",
    ]);
    let stderr = command.output().expect("the program runs").stderr;
    assert!(
        stderr
            .iter()
            .all(|byte| *byte == b'\n' || !byte.is_ascii_control()),
        "{}",
        String::from_utf8_lossy(&stderr)
    );
}

#[test]
fn secrets_are_not_printed() {
    let ended = project().run(&format!(
        "{COMPLETE} --hub_token hf_secret --push_to_hub_token hf_other"
    ));
    assert!(!ended.stderr.contains("hf_"), "{}", ended.stderr);
}
