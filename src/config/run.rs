//! A run as it will happen: nested, complete, immutable. `resolve` makes it from the arguments; after that no `Option`
//! means "default". `host` hands it to `host-engine`, which saves it beside the run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::hub::{Repository, Secret};

/// What the engine is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// `host train`
    Train,
    /// `host evaluate`
    Evaluate,
    /// `host predict`
    Predict,
}

/// The whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What to do.
    pub command: Command,
    /// The model and its tokenizer.
    pub model: Model,
    /// Files and columns.
    pub data: Data,
    /// The loop.
    pub train: Train,
    /// Half precision.
    pub precision: Precision,
    /// Optimizer and schedule.
    pub optimizer: Optimizer,
    /// Evaluation, best model, early stopping.
    pub evaluation: Evaluation,
    /// Log entries.
    pub logging: Logging,
    /// Checkpoints.
    pub saving: Saving,
    /// The Hub; `None`: nothing comes from there and nothing goes there.
    pub hub: Option<Hub>,
    /// Plugins in call order.
    pub plugins: Vec<Plugin>,
    /// After training: evaluate once more and write `eval_results.json`. Always true for [`Command::Evaluate`].
    pub do_eval: bool,
    /// After training: write predictions for the test files. Always true for [`Command::Predict`].
    pub do_predict: bool,
    /// Folder of compiled plugins; `None`: compile at every start.
    pub plugin_cache: Option<PathBuf>,
    /// Folder of checkpoints and results; absolute.
    pub output_dir: PathBuf,
    /// Where records for dashboards belong.
    pub logging_dir: PathBuf,
    /// Threads libtorch uses for one operation.
    pub num_threads: usize,
    /// All arguments by their Hugging Face names, secrets masked: what goes to `training_args.json` and reporters.
    pub arguments: serde_json::Map<String, serde_json::Value>,
}

impl Run {
    /// Whether it uploads to the Hub.
    pub fn pushes(&self) -> bool {
        self.hub.as_ref().is_some_and(|hub| hub.push.is_some())
    }

    /// The run as it is saved: the token of the Hub and values of plugin settings that are called secrets are left out.
    pub fn published(&self) -> Self {
        let mut run = self.clone();
        if let Some(token) = run.hub.as_mut().and_then(|hub| hub.token.as_mut()) {
            *token = Secret::new("<HUB_TOKEN>");
        }
        let settings = run.plugins.iter_mut().flat_map(|plugin| &mut plugin.config);
        for (_, value) in settings.filter(|(key, _)| is_secret(key)) {
            *value = "<SECRET>".into();
        }
        run
    }
}

/// Whether the name of a setting says that its value is nobody else's business.
pub(super) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["token", "key", "secret", "password"]
        .iter()
        .any(|ending| key.ends_with(ending))
}

/// Element type of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names of the types")]
pub enum Dtype {
    Float32,
    Float64,
    Bfloat16,
}

/// Where the model comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// A Hugging Face folder, or a TorchScript file when `torchscript` is set. Empty if a program that embeds the library
    /// hands the model over.
    pub path: PathBuf,
    /// Where the model is on the Hub; then `path` is its name until it has been fetched.
    pub repository: Option<Repository>,
    /// `path` is a TorchScript module (the user passed `--trust_model_code`).
    pub torchscript: bool,
    /// Element type of parameters.
    pub dtype: Dtype,
    /// `sequence-classification` or `token-classification`; `None`: from the architecture in config.json, else sequence.
    pub task: Option<String>,
    /// Folder of the tokenizer if it is not the model's.
    pub tokenizer: Option<PathBuf>,
    /// Where that tokenizer is on the Hub; then `tokenizer` is its name until it has been fetched.
    pub tokenizer_repository: Option<Repository>,
    /// `label_names` (field 59), if set.
    pub label_names: Option<Vec<String>>,
}

/// The Hub, and what a run uploads there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hub {
    /// Its address, without a slash at the end.
    pub endpoint: String,
    /// Folder of what was downloaded, laid out as the Python client does.
    pub cache: PathBuf,
    /// As whom to ask; `None`: as nobody.
    pub token: Option<Secret>,
    /// Take what is in the cache and ask nobody.
    pub offline: bool,
    /// What is uploaded; `None`: nothing.
    pub push: Option<Push>,
}

/// What a run uploads, and where to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// `OWNER/NAME`, or `NAME` among the repositories of whom the token belongs to.
    pub repository: String,
    /// What is uploaded when.
    pub strategy: HubStrategy,
    /// A new repository is private.
    pub private: bool,
    /// Uploads wait for the one that is running; else they are left out.
    pub always: bool,
}

/// What is uploaded during training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HubStrategy {
    /// Nothing.
    End,
    /// The model of each checkpoint.
    EverySave,
    /// Also the checkpoint, as `last-checkpoint`.
    Checkpoint,
    /// Also the checkpoint, under its own name.
    AllCheckpoints,
}

/// Files that are one evaluation set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSet {
    /// Part of the names of its metrics; empty if it is the only set.
    pub name: String,
    /// Files in order.
    pub files: Vec<PathBuf>,
}

/// How rows become batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Collation {
    /// `None`: by the task.
    pub name: Option<String>,
    /// Language models: hide tokens; else every token is its own label.
    pub mlm: bool,
    /// Share of the tokens that are hidden.
    pub mlm_probability: f64,
    /// Permutation language models: share of the tokens that are guessed.
    pub plm_probability: f64,
    /// The longest span that they guess.
    pub max_span_length: usize,
}

/// Files and columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Files in order.
    pub train_files: Vec<PathBuf>,
    /// Evaluation sets in the order of their first files.
    pub validation_sets: Vec<FileSet>,
    /// Files in order.
    pub test_files: Vec<PathBuf>,
    /// Text column; `None`: `text`, `sentence`, `sentence1`, `tokens`, the first that exists.
    pub text_column: Option<String>,
    /// Second text of a pair; `None`: `sentence2`, `text_pair` if it exists.
    pub text_pair_column: Option<String>,
    /// Label column; `None`: `label`, `labels`, `label_ids`, `ner_tags`, `tags`, the first that exists.
    pub label_column: Option<String>,
    /// Truncation length; `None`: the tokenizer's, capped by the model's positions.
    pub max_length: Option<usize>,
    /// Use only the first rows.
    pub max_train_samples: Option<usize>,
    /// Use only the first rows.
    pub max_eval_samples: Option<usize>,
    /// Use only the first rows.
    pub max_predict_samples: Option<usize>,
    /// Pad every batch to the model's maximum instead of its longest row.
    pub pad_to_max_length: bool,
    /// Round padding up to a multiple.
    pub pad_to_multiple_of: Option<usize>,
    /// Columns outside `forward`'s arguments and the labels are dropped.
    pub remove_unused_columns: bool,
    /// Sort rows of similar length together.
    pub group_by_length: bool,
    /// Column with precomputed lengths.
    pub length_column_name: String,
    /// Drop the last incomplete batch.
    pub drop_last: bool,
    /// Training and validation files are read row by row while they are used.
    pub streaming: bool,
    /// How rows become batches.
    pub collation: Collation,
    /// Threads that prepare batches; 0: the loop does.
    pub num_workers: usize,
    /// Seed of a private data generator; `None`: the stream of spec 3.5.
    pub data_seed: Option<u64>,
}

/// The loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Train {
    /// Seed of all generators.
    pub seed: u64,
    /// Rows of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of a step.
    pub gradient_accumulation_steps: usize,
    /// Epochs, may be fractional.
    pub num_train_epochs: f64,
    /// Steps; `None`: from the epochs.
    pub max_steps: Option<u64>,
    /// Clip to this norm; `None`: do not clip.
    pub max_grad_norm: Option<f64>,
    /// Label smoothing, 0 is off.
    pub label_smoothing_factor: f64,
    /// What to continue from.
    pub resume: Resume,
    /// Restart the epoch's data instead of skipping seen batches.
    pub ignore_data_skip: bool,
    /// Output that is fed back as `mems`, the loss being 0; `None`: none is.
    pub past_index: Option<usize>,
    /// What to do at a step with a loss or gradient that is not finite.
    pub on_nonfinite: OnNonfinite,
    /// Recompute activations in the backward pass.
    pub gradient_checkpointing: bool,
    /// Halve the batch size and begin again when memory runs out.
    pub auto_find_batch_size: bool,
    /// Deterministic operations only.
    pub full_determinism: bool,
    /// End the run at the first number that is not finite, with what led to it.
    pub watch_numbers: bool,
}

/// A type of half precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names of the types")]
pub enum Half {
    Bfloat16,
    Float16,
}

/// Half precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precision {
    /// Autocast the forward pass.
    pub autocast: Option<Half>,
    /// Cast the model for training (levels O2 and O3 of apex).
    pub model: Option<Half>,
    /// The optimizer updates float32 copies of a model that was cast.
    pub master_weights: bool,
    /// Scale losses, so that small gradients do not vanish.
    pub scales_losses: bool,
    /// Cast the model when it is evaluated outside training.
    pub full_evaluation: Option<Half>,
    /// Let a GPU round factors to TF32, or forbid it; `None`: libtorch's default.
    pub tf32: Option<bool>,
}

/// What to continue from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resume {
    /// Begin anew.
    No,
    /// The newest complete checkpoint of the output folder; an error if there is none.
    Latest,
    /// This folder.
    From(PathBuf),
}

/// What to do at a step with a loss or gradient that is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNonfinite {
    /// As the reference: go on, count, show the count.
    Warn,
    /// Leave out the update of that step.
    Skip,
    /// Save nothing further and end with the numeric exit code.
    Stop,
}

/// Optimizer and schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Optimizer {
    /// Its Hugging Face name (field 70).
    pub name: String,
    /// What only this optimizer has (`optim_args`), read and checked.
    pub args: serde_json::Map<String, serde_json::Value>,
    /// Peak rate.
    pub learning_rate: f64,
    /// Decay of group 0.
    pub weight_decay: f64,
    /// Adam family.
    pub adam_beta1: f64,
    /// Adam family.
    pub adam_beta2: f64,
    /// Adam family.
    pub adam_epsilon: f64,
    /// Schedule name of spec 4.1.
    pub lr_scheduler_type: String,
    /// What only this schedule has, read and checked.
    pub lr_scheduler_kwargs: serde_json::Map<String, serde_json::Value>,
    /// Used when `warmup_steps` is 0.
    pub warmup_ratio: f64,
    /// Steps of warm-up, overrides the ratio.
    pub warmup_steps: u64,
}

/// When something periodic happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Never.
    No,
    /// Every so many steps.
    Steps,
    /// At the end of each epoch.
    Epoch,
}

/// Evaluation, best model, early stopping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// When.
    pub strategy: Strategy,
    /// Interval; in (0, 1): a share of all steps, resolved when training starts.
    pub steps: f64,
    /// Not before this step or epoch.
    pub delay: f64,
    /// Rows of a batch.
    pub batch_size: usize,
    /// Batches kept on the device before they move to the host.
    pub accumulation_steps: Option<usize>,
    /// Only the loss, no metrics.
    pub prediction_loss_only: bool,
    /// Evaluation runs a frozen form of the model, where there is one.
    pub jit_mode_eval: bool,
    /// Metrics see the main input.
    pub include_inputs: bool,
    /// Metric that decides the best model; `None`: not tracked.
    pub metric_for_best_model: Option<String>,
    /// Direction of that metric.
    pub greater_is_better: bool,
    /// Reload the best weights at the end.
    pub load_best_model_at_end: bool,
    /// Built-in early stopping: patience in evaluations; `None`: off.
    pub early_stopping_patience: Option<u64>,
    /// Smallest improvement that counts.
    pub early_stopping_threshold: f64,
}

/// Log entries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logging {
    /// When the loss is logged.
    pub strategy: Strategy,
    /// Interval; in (0, 1): a share of all steps.
    pub steps: f64,
    /// Log step 1 too.
    pub first_step: bool,
    /// Leave losses that are not finite out of the logged mean.
    pub nan_inf_filter: bool,
    /// Level name as given: `passive`, `debug`, `info`, `warning`, ...
    pub level: String,
    /// Plain lines instead of a bar.
    pub disable_tqdm: bool,
    /// Report what the stages of the run take of memory.
    pub memory_metrics: bool,
    /// Report tokens per second.
    pub tokens_per_second: bool,
    /// Record of every batch and update in full precision.
    pub record_steps: Option<PathBuf>,
    /// Which reporters among the plugins are told.
    pub report_to: ReportTo,
}

/// `report_to` (field 74).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportTo {
    /// All reporters of the run.
    #[default]
    All,
    /// None.
    None,
    /// These, by the names of their plugins.
    Named(Vec<String>),
}

impl ReportTo {
    /// Whether the reporter of a plugin is told. Dashes and underscores are the same.
    pub fn includes(&self, plugin: &str) -> bool {
        let plain = |name: &str| name.replace('-', "_");
        match self {
            Self::All => true,
            Self::None => false,
            Self::Named(names) => names.iter().any(|name| plain(name) == plain(plugin)),
        }
    }
}

impl Logging {
    /// Whether only errors are to be told.
    pub fn is_quiet(&self) -> bool {
        is_quiet(&self.level)
    }
}

/// Whether a log level leaves out everything but errors.
pub(super) fn is_quiet(level: &str) -> bool {
    ["error", "critical"].contains(&level)
}

/// Checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saving {
    /// When.
    pub strategy: Strategy,
    /// Interval; in (0, 1): a share of all steps; 0: never.
    pub steps: f64,
    /// Keep so many; `None`: all.
    pub total_limit: Option<usize>,
    /// What to do when the disk is full.
    pub on_disk_full: OnDiskFull,
}

/// What to do when the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDiskFull {
    /// Warn, keep the old checkpoint, go on training, try again at the next save.
    Continue,
    /// End with the I/O exit code.
    Stop,
}

/// One plugin of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plugin {
    /// The component file; absolute.
    pub path: PathBuf,
    /// Name in messages: the file's stem, unique in the run.
    pub name: String,
    /// Configuration keys given by the user.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Limits given by the user, as written.
    pub limits: std::collections::BTreeMap<String, String>,
    /// Capabilities given by the user, as written.
    #[serde(default)]
    pub grants: Vec<String>,
}
