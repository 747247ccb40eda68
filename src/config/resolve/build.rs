//! The last stage: from checked and completed arguments to the nested run.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use super::super::arguments::FIELDS;
use super::super::run::{
    Collation, Data, Dtype, Evaluation, FileSet, Logging, Model, OnDiskFull, OnNonfinite,
    Optimizer, Plugin, ReportTo, Resume, Run, Saving, Strategy, Train, is_secret,
};
use super::super::setting::{NamedPath, ResumeFrom, quoted};
use super::paths::is_torchscript;
use super::{Draft, Resolved};
use crate::error::Failure;

/// The reference's interval when none is given; no strategy reads it then.
const DEFAULT_STEPS: f64 = 500.0;

impl Draft<'_> {
    /// Reports all findings, or builds the run. Checked values cannot fail here; if one does, a check is missing, and the
    /// error says so.
    pub(super) fn finish(mut self, plugins: Vec<Plugin>) -> Result<Resolved> {
        std::mem::take(&mut self.findings).into_result()?;
        let run = self
            .run(plugins)
            .context("an argument passed the checks but cannot be used")?;
        Ok(Resolved {
            run,
            notes: self.notes,
        })
    }

    fn run(&self, plugins: Vec<Plugin>) -> Result<Run> {
        let arguments = &self.arguments;
        Ok(Run {
            command: self.command,
            model: self.model()?,
            data: self.data()?,
            train: self.train()?,
            precision: self.precision(),
            optimizer: self.optimizer()?,
            evaluation: self.evaluation()?,
            logging: self.logging()?,
            saving: self.saving()?,
            hub: self.hub()?,
            plugins,
            plugin_cache: self
                .surroundings
                .cache
                .as_ref()
                .map(|cache| cache.join("host").join("plugins")),
            do_eval: arguments.do_eval,
            do_predict: arguments.do_predict,
            output_dir: self.absolute(arguments.output_dir.as_deref().context("no output_dir")?),
            logging_dir: self.absolute(arguments.logging_dir.as_deref().context("no logging_dir")?),
            num_threads: count(arguments.num_threads)?.unwrap_or(self.surroundings.num_threads),
            arguments: self.published(),
        })
    }

    fn model(&self) -> Result<Model> {
        let arguments = &self.arguments;
        let path = match (&arguments.model, self.input.supplied) {
            (Some(location), _) if self.on_hub(location).is_some() => location.path.clone(),
            (Some(location), _) => self.absolute(&location.path),
            (None, Some(_)) => PathBuf::new(),
            (None, None) => bail!("no model"),
        };
        Ok(Model {
            torchscript: !path.is_dir() && is_torchscript(&path),
            path,
            repository: self.repository(arguments.model.as_ref()),
            dtype: match arguments.dtype.as_str() {
                "float32" => Dtype::Float32,
                "float64" => Dtype::Float64,
                "bfloat16" => Dtype::Bfloat16,
                other => return Err(unknown("dtype", other)),
            },
            task: arguments.task.clone(),
            tokenizer: arguments
                .tokenizer_name
                .as_ref()
                .map(|location| self.absolute(&location.path)),
            tokenizer_repository: self.repository(arguments.tokenizer_name.as_ref()),
            label_names: arguments.label_names.clone(),
        })
    }

    fn data(&self) -> Result<Data> {
        let arguments = &self.arguments;
        let files = |files: &[PathBuf]| files.iter().map(|file| self.absolute(file)).collect();
        Ok(Data {
            train_files: files(&arguments.train_file),
            validation_sets: self.validation_sets(),
            test_files: files(&arguments.test_file),
            text_column: arguments.text_column.clone(),
            text_pair_column: arguments.text_pair_column.clone(),
            label_column: arguments.label_column.clone(),
            max_length: count(arguments.max_length)?,
            max_train_samples: count(arguments.max_train_samples)?,
            max_eval_samples: count(arguments.max_eval_samples)?,
            max_predict_samples: count(arguments.max_predict_samples)?,
            pad_to_max_length: arguments.pad_to_max_length,
            pad_to_multiple_of: count(arguments.pad_to_multiple_of)?,
            remove_unused_columns: arguments.remove_unused_columns,
            group_by_length: arguments.group_by_length,
            length_column_name: arguments.length_column_name.clone(),
            drop_last: arguments.dataloader_drop_last,
            streaming: arguments.streaming,
            collation: Collation {
                name: arguments.data_collator.clone(),
                mlm: arguments.mlm,
                mlm_probability: arguments.mlm_probability,
                plm_probability: arguments.plm_probability,
                max_span_length: usize::try_from(arguments.max_span_length)?,
            },
            num_workers: usize::try_from(arguments.dataloader_num_workers)?,
            data_seed: arguments.data_seed.map(u64::try_from).transpose()?,
        })
    }

    /// The files of each name together.
    fn validation_sets(&self) -> Vec<FileSet> {
        let mut sets: Vec<FileSet> = Vec::new();
        for NamedPath { name, path } in &self.arguments.validation_file {
            let name = name.clone().unwrap_or_default();
            let file = self.absolute(path);
            match sets.iter_mut().find(|set| set.name == name) {
                Some(set) => set.files.push(file),
                None => sets.push(FileSet {
                    name,
                    files: vec![file],
                }),
            }
        }
        sets
    }

    fn train(&self) -> Result<Train> {
        let arguments = &self.arguments;
        Ok(Train {
            seed: u64::try_from(arguments.seed)?,
            batch_size: usize::try_from(arguments.per_device_train_batch_size)?,
            gradient_accumulation_steps: usize::try_from(arguments.gradient_accumulation_steps)?,
            num_train_epochs: arguments.num_train_epochs,
            max_steps: u64::try_from(arguments.max_steps)
                .ok()
                .filter(|steps| *steps > 0),
            max_grad_norm: arguments
                .max_grad_norm
                .filter(|norm| *norm > 0.0 && norm.is_finite()),
            label_smoothing_factor: arguments.label_smoothing_factor,
            resume: match &arguments.resume_from_checkpoint {
                ResumeFrom::Folder(path) if self.is_training() => Resume::From(self.absolute(path)),
                ResumeFrom::Newest if self.is_training() => Resume::Latest,
                _ => Resume::No,
            },
            ignore_data_skip: arguments.ignore_data_skip,
            past_index: usize::try_from(arguments.past_index).ok(),
            on_nonfinite: match arguments.on_nonfinite.as_str() {
                "warn" => OnNonfinite::Warn,
                "skip" => OnNonfinite::Skip,
                "stop" => OnNonfinite::Stop,
                other => return Err(unknown("on_nonfinite", other)),
            },
            gradient_checkpointing: arguments.gradient_checkpointing,
            auto_find_batch_size: arguments.auto_find_batch_size,
            full_determinism: arguments.full_determinism,
            watch_numbers: self.watches_numbers(),
        })
    }

    fn optimizer(&self) -> Result<Optimizer> {
        let arguments = &self.arguments;
        Ok(Optimizer {
            name: arguments.optim.clone(),
            args: self.optimizer_args().map_err(unsettled)?,
            learning_rate: arguments.learning_rate,
            weight_decay: arguments.weight_decay,
            adam_beta1: arguments.adam_beta1,
            adam_beta2: arguments.adam_beta2,
            adam_epsilon: arguments.adam_epsilon,
            lr_scheduler_type: arguments.lr_scheduler_type.clone(),
            lr_scheduler_kwargs: self.schedule_args().map_err(unsettled)?,
            warmup_ratio: arguments.warmup_ratio,
            warmup_steps: u64::try_from(arguments.warmup_steps)?,
        })
    }

    fn evaluation(&self) -> Result<Evaluation> {
        let arguments = &self.arguments;
        Ok(Evaluation {
            strategy: strategy("evaluation_strategy", &arguments.evaluation_strategy)?,
            steps: arguments.eval_steps.map_or(DEFAULT_STEPS, |steps| steps.0),
            delay: arguments.eval_delay.map_or(0.0, |delay| delay.0),
            batch_size: usize::try_from(arguments.per_device_eval_batch_size)?,
            accumulation_steps: count(arguments.eval_accumulation_steps)?,
            prediction_loss_only: arguments.prediction_loss_only,
            jit_mode_eval: arguments.jit_mode_eval,
            include_inputs: arguments.include_inputs_for_metrics,
            metric_for_best_model: arguments.metric_for_best_model.clone(),
            greater_is_better: arguments.greater_is_better.unwrap_or(false),
            load_best_model_at_end: arguments.load_best_model_at_end,
            early_stopping_patience: arguments
                .early_stopping_patience
                .map(u64::try_from)
                .transpose()?,
            early_stopping_threshold: arguments.early_stopping_threshold,
        })
    }

    fn logging(&self) -> Result<Logging> {
        let arguments = &self.arguments;
        Ok(Logging {
            strategy: strategy("logging_strategy", &arguments.logging_strategy)?,
            steps: arguments.logging_steps.0,
            first_step: arguments.logging_first_step,
            nan_inf_filter: arguments.logging_nan_inf_filter,
            level: arguments.log_level.clone(),
            disable_tqdm: arguments.disable_tqdm.unwrap_or(false),
            memory_metrics: !arguments.skip_memory_metrics,
            tokens_per_second: arguments.include_tokens_per_second,
            record_steps: arguments
                .record_steps
                .as_deref()
                .map(|path| self.absolute(path)),
            report_to: self.report_to(),
        })
    }

    fn report_to(&self) -> ReportTo {
        match self.input.arguments.report_to.0.as_deref() {
            None => ReportTo::All,
            Some([name]) if name == "all" => ReportTo::All,
            Some([]) => ReportTo::None,
            Some(names) => ReportTo::Named(names.to_vec()),
        }
    }

    fn saving(&self) -> Result<Saving> {
        let arguments = &self.arguments;
        Ok(Saving {
            strategy: strategy("save_strategy", &arguments.save_strategy)?,
            steps: arguments.save_steps.0,
            total_limit: arguments
                .save_total_limit
                .and_then(|limit| usize::try_from(limit).ok())
                .filter(|limit| *limit > 0),
            on_disk_full: match arguments.on_disk_full.as_str() {
                "continue" => OnDiskFull::Continue,
                "stop" => OnDiskFull::Stop,
                other => return Err(unknown("on_disk_full", other)),
            },
        })
    }

    /// All arguments as they took effect, secrets masked as the reference masks them.
    fn published(&self) -> Map<String, Value> {
        let mut values = Map::new();
        for field in FIELDS {
            let value = if field.is_secret() {
                mask(field.name)
            } else {
                field.show(&self.arguments)
            };
            values.insert(field.name.to_owned(), value);
        }
        let settings =
            self.arguments
                .plugin_config
                .iter()
                .map(|setting| match setting.split_once('=') {
                    Some((key, _)) if is_secret(key) => Value::from(format!("{key}=<SECRET>")),
                    _ => Value::from(setting.as_str()),
                });
        values.insert("plugin_config".to_owned(), settings.collect());
        values
    }
}

fn mask(name: &str) -> Value {
    Value::from(format!("<{}>", name.to_ascii_uppercase()))
}

/// Settings of plugins that are secrets by their name.
fn count(value: Option<i64>) -> Result<Option<usize>> {
    Ok(value.map(usize::try_from).transpose()?)
}

fn strategy(field: &str, name: &str) -> Result<Strategy> {
    match name {
        "no" => Ok(Strategy::No),
        "steps" => Ok(Strategy::Steps),
        "epoch" => Ok(Strategy::Epoch),
        other => Err(unknown(field, other)),
    }
}

/// Settings that the checks have refused already.
fn unsettled(wrong: Vec<String>) -> anyhow::Error {
    Failure::usage(wrong.join("; ")).into()
}

fn unknown(field: &str, value: &str) -> anyhow::Error {
    Failure::usage(format!("{field}: {} is not a choice", quoted(value))).into()
}
