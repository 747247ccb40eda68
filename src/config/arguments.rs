//! The arguments as written: the fields of `TrainingArguments` 4.34.0 and those of this program, one row each.
//!
//! Name, type, default, help, allowed values and state of an argument stand here and nowhere else: the command line,
//! configuration files, help, `host args` and the README are made from this table. What values mean together is checked
//! in `resolve`.

use std::path::PathBuf;

use super::field::{Choice, Field, arguments, choice, further, host, later, listed, never};
use super::hub::DEFAULT_REVISION;
use super::setting::{Location, NamedPath, Number, ReporterNames, ResumeFrom, Setting};

const GPU: &str = "a GPU to try it on";
const DISTRIBUTED: &str = "training with several processes";
const SHARDING: &str = "sharding over several processes";

const STRATEGIES: &[Choice] = &[choice("no"), choice("steps"), choice("epoch")];

const SCHEDULES: &[Choice] = &[
    choice("linear"),
    choice("cosine"),
    choice("cosine_with_restarts"),
    choice("polynomial"),
    choice("constant"),
    choice("constant_with_warmup"),
    choice("inverse_sqrt"),
    choice("reduce_lr_on_plateau"),
    choice("piecewise"),
    choice("exponential"),
    choice("cosine_with_min_lr"),
    choice("warmup_stable_decay"),
];

const OPTIMIZERS: &[Choice] = &[
    choice("adamw_torch"),
    choice("adamw_torch_fused"),
    choice("sgd"),
    choice("adafactor"),
    choice("adamw_hf"),
    choice("adamw_apex_fused"),
    choice("adamw_anyprecision"),
    choice("adagrad"),
    choice("rmsprop"),
    choice("lion_32bit"),
    choice("adamw_bnb_8bit"),
    choice("adamw_8bit"),
    choice("paged_adamw_32bit"),
    choice("paged_adamw_8bit"),
    choice("lion_8bit"),
    choice("paged_lion_32bit"),
    choice("paged_lion_8bit"),
    choice("muon"),
    choice("schedule_free_adamw"),
    choice("stable_adamw"),
    never(
        "adamw_torch_xla",
        "it needs an XLA device, and libtorch has none",
    ),
];

const LOG_LEVELS: &[Choice] = &[
    choice("detail"),
    choice("debug"),
    choice("info"),
    choice("warning"),
    choice("error"),
    choice("critical"),
    choice("passive"),
];

const HALF_BACKENDS: &[Choice] = &[
    choice("auto"),
    choice("cuda_amp"),
    choice("apex"),
    choice("cpu_amp"),
];
const APEX_LEVELS: &[Choice] = &[choice("O0"), choice("O1"), choice("O2"), choice("O3")];

const TASKS: &[Choice] = &[
    choice("sequence-classification"),
    choice("token-classification"),
    choice("masked-lm"),
];
const COLLATORS: &[Choice] = &[
    choice("default"),
    choice("padding"),
    choice("token_classification"),
    choice("language_modeling"),
    choice("permutation_language_modeling"),
    choice("seq2seq"),
    choice("packing"),
];
const DTYPES: &[Choice] = &[
    choice("float32"),
    choice("float64"),
    choice("bfloat16"),
    later("float16", GPU),
];
const HUB_STRATEGIES: &[Choice] = &[
    choice("end"),
    choice("every_save"),
    choice("checkpoint"),
    choice("all_checkpoints"),
];
const BACKENDS: &[Choice] = &[
    choice("eager"),
    choice("ts"),
    choice("inductor"),
    later("cudagraphs", GPU),
    never("aot_eager", "it only traces the model, in Python"),
    never("aot_ts", NOT_PYTHON),
    never("aot_ts_nvfuser", NO_NVFUSER),
    never("nvprims_nvfuser", NO_NVFUSER),
    never("ofi", NOT_PYTHON),
    never("fx2trt", NOT_PYTHON),
    never("onnxrt", NOT_PYTHON),
    never("tensorrt", NOT_PYTHON),
    never("openxla", "libtorch has no XLA device"),
    never(
        "ipex",
        "Intel's extension is a Python package that is no longer developed",
    ),
    never("tvm", NOT_PYTHON),
];
const NOT_PYTHON: &str = "it compiles in Python, which this program does without";
const NO_NVFUSER: &str = "libtorch has no NVFuser any more";
const COMPILE_MODES: &[Choice] = &[
    choice("default"),
    never("reduce-overhead", OF_INDUCTOR),
    never("max-autotune", OF_INDUCTOR),
    never("max-autotune-no-cudagraphs", OF_INDUCTOR),
];
const OF_INDUCTOR: &str = "it is a mode of inductor, to be chosen where an AOT package is made";
const ON_NONFINITE: &[Choice] = &[choice("warn"), choice("skip"), choice("stop")];
const ON_DISK_FULL: &[Choice] = &[choice("continue"), choice("stop")];

arguments! {
    "Model" {
        /// Folder with config.json, weights and tokenizer, or OWNER/NAME on the Hub, or a TorchScript file (.pt), or for
        /// evaluation an AOT package (.pt2); the latter two are code and need --trust_model_code.
        model: Option<Location> = None, host().also_named(&["model_name_or_path"]);
        /// Branch, tag or commit of a model on the Hub.
        model_revision: String = DEFAULT_REVISION.into(), host();
        /// Allow --model to be a TorchScript file or an AOT package. It can do whatever you can do.
        trust_model_code: bool = false, host();
        /// Instead of --model: folder with config.json of a model whose weights are all drawn anew from --seed.
        config_name: Option<PathBuf> = None, host();
        /// Folder of the tokenizer, or OWNER/NAME on the Hub, if it is not the model's.
        tokenizer_name: Option<Location> = None, host().also_named(&["processing_class"]);
        /// What the head does; absent: by the architecture in config.json, else sequence-classification. masked-lm must be named,
        /// because most published encoders carry the head they were pretrained with.
        task: Option<String> = None, host().one_of(TASKS);
        /// Element type of the parameters.
        dtype: String = "float32".into(), host().one_of(DTYPES).also_named(&["torch_dtype"]);
    }

    "Data" {
        /// Rows to train on: JSONL, CSV or Parquet; like all data files also hf://datasets/OWNER/NAME@REVISION/PATH.
        train_file: Vec<PathBuf> = Vec::new(), host();
        /// Rows to evaluate on; with NAME=FILE several sets, whose metrics are eval_NAME_loss and so on.
        validation_file: Vec<NamedPath> = Vec::new(), host();
        /// Rows to predict.
        test_file: Vec<PathBuf> = Vec::new(), host();
        /// Column with the text or the words; absent: text, sentence, sentence1 or tokens, the first that exists.
        text_column: Option<String> = None, host().also_named(&["text_column_name"]);
        /// Column with the second text of a pair; absent: sentence2 or text_pair, if one exists.
        text_pair_column: Option<String> = None, host();
        /// Column with the labels; absent: label, labels, label_ids, ner_tags or tags, the first that exists.
        label_column: Option<String> = None, host().also_named(&["label_column_name"]);
        /// Names of the inputs that are labels; absent: by the model.
        label_names: Option<Vec<String>> = None, listed(59);
        /// Cut texts to so many tokens; absent: the tokenizer's limit, capped by the model's positions.
        max_length: Option<i64> = None, host().also_named(&["max_seq_length"]);
        /// Pad every batch to the maximum length instead of its longest row.
        pad_to_max_length: bool = false, host();
        /// Round the padded length up to a multiple of this.
        pad_to_multiple_of: Option<i64> = None, host();
        /// Use only the first rows of the training data.
        max_train_samples: Option<i64> = None, host();
        /// Use only the first rows of the validation data.
        max_eval_samples: Option<i64> = None, host();
        /// Use only the first rows of the test data.
        max_predict_samples: Option<i64> = None, host();
        /// Read the data files row by row, in their order, instead of into memory; training needs --max_steps then.
        streaming: bool = false, host();
        /// How rows become batches; absent: by the task, padding with a tokenizer and default without.
        data_collator: Option<String> = None, host().one_of(COLLATORS);
        /// Language models: hide tokens, which are the labels; with no, every token is its own label (causal).
        mlm: bool = true, host();
        /// Share of the tokens that are hidden.
        mlm_probability: f64 = 0.15, host();
        /// Permutation language models: share of the tokens that are guessed.
        plm_probability: f64 = 1.0 / 6.0, host();
        /// Permutation language models: the longest span of tokens that are guessed.
        max_span_length: i64 = 5, host();
        /// Drop columns that the model's forward does not take.
        remove_unused_columns: bool = true, listed(58);
        /// Leave out the last incomplete batch, in training, evaluation and prediction.
        dataloader_drop_last: bool = false, listed(52);
        /// Threads that prepare batches, two ahead each; 0: the loop prepares them.
        dataloader_num_workers: i64 = 0, listed(54);
        /// Stage batches in page-locked memory; without effect on a CPU.
        dataloader_pin_memory: bool = true, listed(79);
        /// Put rows of similar length into the same batch.
        group_by_length: bool = false, listed(72);
        /// Column with lengths computed in advance, for --group_by_length.
        length_column_name: String = "length".into(), listed(73);
        /// Seed of the data order; absent: the order follows --seed as in 4.34.
        data_seed: Option<i64> = None, listed(39);
        /// Read batches in the first process and send them to the others; without effect in a single one.
        dispatch_batches: Option<bool> = None, further();
    }

    "Training" {
        /// Folder of checkpoints, results and the final model.
        output_dir: Option<PathBuf> = None, listed(1);
        /// Train into a folder that holds the results of an earlier run. Nothing in it is deleted first.
        overwrite_output_dir: bool = false, listed(2);
        /// Train; `host train` implies it.
        do_train: bool = false, listed(3);
        /// Evaluate after training; implied by an evaluation strategy, a validation file and `host evaluate`.
        do_eval: bool = false, listed(4);
        /// Write predictions for the test file after training; `host predict` implies it.
        do_predict: bool = false, listed(5);
        /// Rows of a batch in training.
        per_device_train_batch_size: i64 = 8, listed(8);
        /// Batches whose gradients are added up for one step.
        gradient_accumulation_steps: i64 = 1, listed(10);
        /// Passes over the training data; may be fractional.
        num_train_epochs: f64 = 3.0, listed(19);
        /// Steps to train; above 0 it replaces --num_train_epochs.
        max_steps: i64 = -1, listed(20);
        /// Clip gradients to this norm; none or 0: do not clip.
        max_grad_norm: Option<f64> = Some(1.0), listed(18);
        /// Share of the label's probability that is spread over all classes.
        label_smoothing_factor: f64 = 0.0, listed(68);
        /// Seed of all random numbers.
        seed: i64 = 42, listed(38);
        /// Continue from the newest checkpoint of the output folder (true) or from this one (a folder).
        resume_from_checkpoint: ResumeFrom = ResumeFrom::Nothing, listed(63);
        /// On resuming, start the epoch's data again instead of skipping what was seen.
        ignore_data_skip: bool = false, listed(62);
        /// At a step with a loss or gradient that is not finite: warn and go on, skip the update, or stop.
        on_nonfinite: String = "warn".into(), host().one_of(ON_NONFINITE);
        /// Recompute activations in the backward pass to save memory; native architectures only.
        gradient_checkpointing: bool = false, listed(78);
        /// Halve the batch size when memory runs out and begin again.
        auto_find_batch_size: bool = false, listed(82);
        /// Take deterministic operations only, and fail where there is none.
        full_determinism: bool = false, listed(83);
        /// Output that a TorchScript module gets back with the next batch as `mems`, counted from the loss as 0; -1: none.
        past_index: i64 = -1, listed(55);
        /// underflow_overflow: stop at the first number that is not finite and show what led to it. tpu_metrics_debug is
        /// refused.
        debug: String = String::new(), listed(69);
        /// Deprecated: use --per_device_train_batch_size.
        per_gpu_train_batch_size: Option<i64> = None, further();
    }

    "Optimizer and schedule" {
        /// The optimizer. Names with 8bit keep a state of 8 bits for parameters of 4096 elements or more; those with paged
        /// mean the same as without on a CPU.
        optim: String = "adamw_torch".into(), listed(70).one_of(OPTIMIZERS);
        /// Settings of the optimizer as k=v,k=v; adamw_anyprecision, adamw_hf, muon, schedule_free_adamw and stable_adamw
        /// have some.
        optim_args: Option<String> = None, listed(71);
        /// Peak learning rate.
        learning_rate: f64 = 5e-5, listed(13);
        /// Weight decay of all parameters but biases and layer norms.
        weight_decay: f64 = 0.0, listed(14);
        /// First beta of the Adam family.
        adam_beta1: f64 = 0.9, listed(15);
        /// Second beta of the Adam family.
        adam_beta2: f64 = 0.999, listed(16);
        /// Epsilon of the Adam family.
        adam_epsilon: f64 = 1e-8, listed(17);
        /// How the learning rate changes over the run.
        lr_scheduler_type: String = "linear".into(), listed(21).one_of(SCHEDULES);
        /// Settings of the schedule as k=v,k=v or a JSON object, such as num_cycles=2.
        lr_scheduler_kwargs: Option<String> = None, host();
        /// Share of all steps spent on warming up.
        warmup_ratio: f64 = 0.0, listed(22);
        /// Steps of warming up; above 0 it overrides --warmup_ratio.
        warmup_steps: i64 = 0, listed(23);
        /// Deprecated: use --optim adafactor.
        adafactor: bool = false, further();
    }

    "Evaluation" {
        /// When to evaluate during training.
        evaluation_strategy: String = "no".into(), listed(6).one_of(STRATEGIES).also_named(&["eval_strategy"]);
        /// Steps between evaluations, or a share of all steps below 1; absent: --logging_steps.
        eval_steps: Option<Number> = None, listed(53);
        /// Do not evaluate before this step or epoch.
        eval_delay: Option<Number> = Some(Number(0.0)), listed(12);
        /// Rows of a batch in evaluation and prediction.
        per_device_eval_batch_size: i64 = 8, listed(9);
        /// Batches of outputs that metrics which keep outputs leave on the device before they move to main memory; absent: all.
        eval_accumulation_steps: Option<i64> = None, listed(11);
        /// Outputs that metrics, logits plugins and predictions do not see; absent: keys_to_ignore_at_inference of config.json.
        ignore_keys: Option<Vec<String>> = None, host();
        /// Report only the loss.
        prediction_loss_only: bool = false, listed(7);
        /// Reload the best checkpoint when training ends.
        load_best_model_at_end: bool = false, listed(34);
        /// Metric that decides which checkpoint is best, with or without eval_; absent: loss, if one is needed.
        metric_for_best_model: Option<String> = None, listed(60);
        /// Whether more of that metric is better; absent: unless its name ends in loss.
        greater_is_better: Option<bool> = None, listed(61);
        /// Stop after so many evaluations without improvement; absent: do not, or after 1 if --callbacks has early_stopping.
        early_stopping_patience: Option<i64> = None, host();
        /// Smallest change of the metric that counts as an improvement.
        early_stopping_threshold: f64 = 0.0, host();
        /// Give the main input of each batch to metrics and logits plugins too.
        include_inputs_for_metrics: bool = false, listed(81);
        /// Evaluate a frozen, warmed-up copy of a TorchScript module; a native model is evaluated as it is, with a warning.
        jit_mode_eval: bool = false, listed(40);
        /// Cast the model to bfloat16 for evaluations outside training.
        bf16_full_eval: bool = false, listed(46);
        /// Cast the model to float16 for evaluations outside training; needs a GPU.
        fp16_full_eval: bool = false, listed(47);
        /// Deprecated: use --per_device_eval_batch_size.
        per_gpu_eval_batch_size: Option<i64> = None, further();
        /// Use the evaluation loop of old releases.
        use_legacy_prediction_loop: bool = false, further().refused("the ordinary loop gives the same results");
    }

    "Logging" {
        /// When to log the training loss.
        logging_strategy: String = "steps".into(), listed(28).one_of(STRATEGIES);
        /// Steps between log entries, or a share of all steps below 1.
        logging_steps: Number = Number(500.0), listed(29);
        /// Log the first step too.
        logging_first_step: bool = false, further();
        /// Leave losses that are not finite out of the logged mean.
        logging_nan_inf_filter: bool = true, listed(30);
        /// Folder for reporters; absent: OUTPUT_DIR/runs/TIME_HOST.
        logging_dir: Option<PathBuf> = None, listed(27);
        /// How much the program says.
        log_level: String = "passive".into(), listed(24).one_of(LOG_LEVELS);
        /// How much processes other than the main one say; without effect in a single one.
        log_level_replica: String = "warning".into(), listed(25).one_of(LOG_LEVELS);
        /// Let the first process of each machine log instead of only one; without effect in a single one.
        log_on_each_node: bool = true, listed(26);
        /// Where records go besides the output folder: none, all reporters among the plugins, or these by name.
        report_to: ReporterNames = ReporterNames(None), listed(74);
        /// Name of the run for reporters; absent: the output folder.
        run_name: Option<String> = None, listed(56);
        /// Plain lines instead of a progress bar; absent: by --log_level.
        disable_tqdm: Option<bool> = None, listed(57);
        /// Leave out measurements of memory.
        skip_memory_metrics: bool = true, listed(80);
        /// Write every batch and update at full precision to this file, as JSON lines, to compare runs.
        record_steps: Option<PathBuf> = None, host();
        /// Report tokens per second of training. Counting reads the training data once and advances the random draws.
        include_tokens_per_second: bool = false, listed(90);
    }

    "Checkpoints" {
        /// When to save a checkpoint.
        save_strategy: String = "steps".into(), listed(31).one_of(STRATEGIES);
        /// Steps between checkpoints, or a share of all steps below 1; 0: never.
        save_steps: Number = Number(500.0), listed(32);
        /// Keep so many checkpoints; none or 0: all.
        save_total_limit: Option<i64> = None, listed(33);
        /// Weights are always safetensors: an explicit false is refused, because no pickles are written.
        save_safetensors: bool = false, listed(35);
        /// Let the first process of each machine save instead of only one; without effect in a single one.
        save_on_each_node: bool = false, listed(36);
        /// When the disk is full: go on without the checkpoint and try again at the next, or stop.
        on_disk_full: String = "continue".into(), host().one_of(ON_DISK_FULL);
    }

    "Plugins" {
        /// The built-in callbacks that are called: default_flow (which logs, evaluates, saves and stops as the arguments say),
        /// early_stopping, progress (with --disable_tqdm: printer). Absent: all that the arguments ask for.
        callbacks: Option<Vec<String>> = None, host();
        /// A WebAssembly component to run in its sandbox, or namespace/name of one in plugins.lock; repeatable, added to those of the file.
        plugin: Vec<PathBuf> = Vec::new(), host();
        /// One setting of a plugin, NAME.key=value; NAME is the file name without .wasm, the value JSON or a string.
        plugin_config: Vec<String> = Vec::new(), host();
        /// One limit of a plugin, NAME.limit=value, as the error of the limit names it.
        plugin_limit: Vec<String> = Vec::new(), host();
        /// One capability for a plugin, NAME.CAPABILITY, as the error about the missing grant writes it; repeatable.
        plugin_grant: Vec<String> = Vec::new(), host();
        /// Run without any plugin, also those of the file.
        no_plugins: bool = false, host();
    }

    "Device and precision" {
        /// Train on the CPU even if there is a GPU.
        use_cpu: bool = false, listed(37);
        /// Deprecated: use --use_cpu.
        no_cuda: bool = false, further();
        /// Threads for one operation; absent: OMP_NUM_THREADS, else the processors available.
        num_threads: Option<i64> = None, host();
        /// Autocast forward passes to bfloat16.
        bf16: bool = false, listed(42);
        /// Autocast forward passes to float16 and scale losses; needs a GPU.
        fp16: bool = false, listed(43);
        /// Level of --half_precision_backend apex.
        fp16_opt_level: String = "O1".into(), listed(44).one_of(APEX_LEVELS);
        /// Implementation of --fp16; apex counts by its level, the others are the same here.
        half_precision_backend: String = "auto".into(), listed(45).one_of(HALF_BACKENDS);
        /// Deprecated name of half_precision_backend.
        fp16_backend: String = "auto".into(), further().one_of(HALF_BACKENDS);
        /// Let a GPU round factors of matrix products to TF32 (true needs one), or not.
        tf32: Option<bool> = None, listed(48);
        /// Intel's extension for PyTorch.
        use_ipex: bool = false, listed(41).refused("Intel's extension is a Python package that is no longer developed");
        /// Cores of a TPU.
        tpu_num_cores: Option<i64> = None, listed(51).refused("libtorch has no TPU device");
        /// Deprecated: use --debug tpu_metrics_debug.
        tpu_metrics_debug: bool = false, further().refused("libtorch has no TPU device");
        /// Apple's GPU.
        use_mps_device: bool = false, further().refused("there is no such device on Linux");
        /// Run a compiled form of the model, by --torch_compile_backend.
        torch_compile: bool = false, listed(87);
        /// ts: fuse operations of a TorchScript file where it is evaluated. inductor: the model is an AOT package, compiled in
        /// advance. eager: as without. Absent: ts for a TorchScript file, else inductor.
        torch_compile_backend: Option<String> = None, listed(88).one_of(BACKENDS);
        /// Mode of --torch_compile.
        torch_compile_mode: Option<String> = None, listed(89).one_of(COMPILE_MODES);
        /// Deprecated name of torch_compile_backend.
        torchdynamo: Option<String> = None, listed(84).one_of(BACKENDS);
    }

    "Distributed" {
        /// Number of this process on its machine, given by the launcher.
        local_rank: i64 = -1, listed(49).deferred(DISTRIBUTED);
        /// How processes talk: nccl, gloo, mpi, ccl, hccl.
        ddp_backend: Option<String> = None, listed(50).deferred(DISTRIBUTED);
        /// Look for parameters without gradient in each step.
        ddp_find_unused_parameters: Option<bool> = None, listed(75).deferred(DISTRIBUTED);
        /// Megabytes of gradients sent at once.
        ddp_bucket_cap_mb: Option<i64> = None, listed(76).deferred(DISTRIBUTED);
        /// Send buffers at each forward pass.
        ddp_broadcast_buffers: Option<bool> = None, listed(77).deferred(DISTRIBUTED);
        /// Seconds to wait for other processes.
        ddp_timeout: i64 = 1800, listed(86).deferred(DISTRIBUTED);
        /// FairScale's sharding.
        sharded_ddp: String = String::new(), listed(64).deferred(SHARDING);
        /// Shard parameters: full_shard, shard_grad_op, no_shard, offload, auto_wrap.
        fsdp: String = String::new(), listed(65).deferred(SHARDING);
        /// Settings of --fsdp: a JSON file.
        fsdp_config: Option<String> = None, listed(66).deferred(SHARDING);
        /// Deprecated: part of --fsdp_config.
        fsdp_min_num_params: i64 = 0, further().deferred(SHARDING);
        /// Deprecated: part of --fsdp_config.
        fsdp_transformer_layer_cls_to_wrap: Option<String> = None, further().deferred(SHARDING);
        /// DeepSpeed's settings: a JSON file.
        deepspeed: Option<String> = None, listed(67).deferred(SHARDING);
        /// Which trial of a search is best.
        ray_scope: String = "last".into(), listed(85).deferred("the search for hyper-parameters");
        /// Settings of SageMaker's model parallelism.
        mp_parameters: String = String::new(), further().refused("it needs SageMaker's Python library");
    }

    "Hub" {
        /// Upload the model to the Hub: during training as --hub_strategy says, and at the end with its model card.
        push_to_hub: bool = false, listed(91);
        /// Repository to upload to, OWNER/NAME or NAME; absent: the name of the output folder.
        hub_model_id: Option<String> = None, listed(92);
        /// What is uploaded during training. end: nothing; every_save: the model of each checkpoint; checkpoint: also the
        /// checkpoint as last-checkpoint; all_checkpoints: also each checkpoint under its name.
        hub_strategy: String = "every_save".into(), listed(93).one_of(HUB_STRATEGIES);
        /// Secret of the Hub, never stored; absent: HF_TOKEN, else the file that a login left.
        hub_token: Option<String> = None, listed(94);
        /// Make the repository private, if it is new.
        hub_private_repo: bool = false, listed(95);
        /// Upload each checkpoint even if an upload is still running: it waits for its turn.
        hub_always_push: bool = false, listed(96);
        /// Deprecated: use --hub_model_id.
        push_to_hub_model_id: Option<String> = None, further();
        /// Deprecated: use --hub_model_id.
        push_to_hub_organization: Option<String> = None, further();
        /// Deprecated name of hub_token.
        push_to_hub_token: Option<String> = None, further();
    }
}

/// The row of a name: Hugging Face's or another one with the same meaning; dashes count as underscores.
pub fn field(name: &str) -> Option<&'static Field> {
    let name = name.replace('-', "_");
    FIELDS
        .iter()
        .find(|field| field.name == name || field.facts.aliases.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_arguments_share_a_name() {
        let mut names = BTreeSet::new();
        for field in FIELDS {
            for name in std::iter::once(&field.name).chain(field.facts.aliases) {
                assert!(names.insert(*name), "{name} is declared twice");
            }
        }
    }

    #[test]
    fn dashes_and_other_names_find_the_argument() {
        let cases = [
            ("learning-rate", Some("learning_rate")),
            ("eval_strategy", Some("evaluation_strategy")),
            ("model-name-or-path", Some("model")),
            ("lerning_rate", None),
        ];
        for (name, expected) in cases {
            assert_eq!(field(name).map(|field| field.name), expected, "{name}");
        }
    }
}
