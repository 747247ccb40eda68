//! Model and data of a run: files into tables, tables into rows, rows and configuration into a model.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use tch::Kind;

use crate::config::run::{self, Dtype, Run};
use crate::data::collator::{DefaultCollator, PadTo, PaddingCollator, TokenClassificationCollator};
use crate::data::labels::{LabelMap, LabelRules, LabelSummary};
use crate::data::loader::LoaderParts;
use crate::data::sampler::{LengthGrouped, Random, Sequential};
use crate::data::{
    self, Collator, Loader, PrepareOptions, Prepared, Sampler, Table, TokenLimits, Tokenizer,
    format, prepare,
};
use crate::error::Failure;
use crate::model::architecture::{self, LoadOptions};
use crate::model::torchscript::{self, ScriptOptions};
use crate::model::{Model, ModelConfig, ProblemType, Task};

/// Everything that was read.
pub(super) struct Inputs {
    pub model: Box<dyn Model>,
    pub config: Option<ModelConfig>,
    /// `None`: a TorchScript module.
    pub task: Option<Task>,
    pub problem_type: Option<ProblemType>,
    pub tokenizer: Option<Tokenizer>,
    pub sets: Sets,
    max_length: Option<usize>,
}

/// The sets that were wanted.
#[derive(Debug)]
pub(super) struct Sets {
    pub train: Option<Prepared>,
    /// With their names; empty if not wanted.
    pub validation: Vec<(String, Prepared)>,
    pub test: Option<Prepared>,
}

/// Which sets a command needs, and which of them must have labels.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    pub train: bool,
    pub validation: bool,
    pub test: bool,
}

fn kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::Float32 => Kind::Float,
        Dtype::Float64 => Kind::Double,
        Dtype::Bfloat16 => Kind::BFloat16,
    }
}

/// What is known of the labels so far: from the configuration, then from the training set.
#[derive(Clone, Debug, Default)]
struct Known {
    label2id: Option<LabelMap>,
    num_labels: Option<usize>,
    problem_type: Option<ProblemType>,
}

impl Known {
    fn of_config(config: Option<&ModelConfig>) -> Self {
        let Some(config) = config else {
            return Self::default();
        };
        let own = config.has_own_labels();
        let ids = || {
            config
                .labels
                .iter()
                .enumerate()
                .map(|(id, name)| (name.clone(), id as i64))
                .collect()
        };
        Self {
            label2id: own.then(ids),
            num_labels: own.then(|| config.num_labels()),
            problem_type: config.problem_type,
        }
    }

    fn learn(&mut self, summary: &LabelSummary) {
        self.label2id = summary.label2id.clone().or(self.label2id.take());
        self.num_labels = summary.num_labels.or(self.num_labels);
        self.problem_type = summary.problem_type.or(self.problem_type);
    }

    fn rules(&self) -> LabelRules<'_> {
        LabelRules {
            label2id: self.label2id.as_ref(),
            num_labels: self.num_labels,
            problem_type: self.problem_type,
        }
    }
}

/// Names in the order of their numbers.
fn names(label2id: &BTreeMap<String, i64>) -> Vec<String> {
    let mut pairs: Vec<_> = label2id.iter().collect();
    pairs.sort_by_key(|(_, id)| **id);
    pairs.into_iter().map(|(name, _)| name.clone()).collect()
}

/// What preparing needs to know of the model before it is built.
struct Interface {
    task: data::Task,
    forward_arguments: Vec<String>,
    label_names: Vec<String>,
    tokens: TokenLimits,
}

/// Reads model and data.
pub(super) fn read(run: &Run, wanted: Wanted) -> Result<Inputs> {
    if run.model.torchscript {
        read_script(run, wanted)
    } else {
        read_native(run, wanted)
    }
}

fn read_native(run: &Run, wanted: Wanted) -> Result<Inputs> {
    let config = ModelConfig::read(&run.model.path)?;
    let task = architecture::task_of(
        &config,
        run.model.task.as_deref().map(Task::parse).transpose()?,
    )?;
    let folder = run.model.tokenizer.as_ref().unwrap_or(&run.model.path);
    let mut tokenizer = Tokenizer::load(folder)
        .with_context(|| format!("the tokenizer of {}", folder.display()))?;
    let architecture::Interface {
        arguments,
        max_positions,
        vocabulary,
    } = architecture::interface(&config, Some(task))?;
    let max_length = tokenizer.limit(run.data.max_length, max_positions)?;
    let mut known = Known::of_config(Some(&config));
    let interface = Interface {
        task: match task {
            Task::SequenceClassification => data::Task::SequenceClassification,
            Task::TokenClassification => data::Task::TokenClassification,
        },
        forward_arguments: arguments,
        label_names: run
            .model
            .label_names
            .clone()
            .unwrap_or_else(|| vec!["labels".to_owned()]),
        tokens: TokenLimits {
            vocabulary,
            positions: max_positions,
        },
    };
    let sets = read_sets(run, wanted, (Some(&tokenizer), &interface), &mut known)?;
    let loaded = architecture::load(&LoadOptions {
        path: run.model.path.clone(),
        task: Some(task),
        kind: kind(run.model.dtype),
        num_labels: known.num_labels,
        labels: known.label2id.as_ref().map(names),
        problem_type: known.problem_type,
    })?;
    for message in loaded.report.messages() {
        tracing::warn!("{message}");
    }
    let problem_type = loaded.config.problem_type;
    Ok(Inputs {
        model: loaded.model,
        config: Some(loaded.config),
        task: Some(task),
        problem_type,
        tokenizer: Some(tokenizer),
        sets,
        max_length,
    })
}

fn read_script(run: &Run, wanted: Wanted) -> Result<Inputs> {
    let options = ScriptOptions {
        path: run.model.path.clone(),
        kind: kind(run.model.dtype),
        label_names: run.model.label_names.clone(),
    };
    let model = torchscript::load(&options)?;
    let mut tokenizer = run
        .model
        .tokenizer
        .as_deref()
        .map(Tokenizer::load)
        .transpose()?;
    let max_length = match &mut tokenizer {
        Some(tokenizer) => tokenizer.limit(run.data.max_length, None)?,
        None => None,
    };
    let interface = Interface {
        task: data::Task::Other,
        forward_arguments: model.forward_arguments().to_vec(),
        label_names: model.label_names(),
        tokens: TokenLimits::default(),
    };
    let sets = read_sets(
        run,
        wanted,
        (tokenizer.as_ref(), &interface),
        &mut Known::default(),
    )?;
    Ok(Inputs {
        model: Box::new(model),
        config: None,
        task: None,
        problem_type: None,
        tokenizer,
        sets,
        max_length,
    })
}

/// Reads the sets that are wanted. What the training set says of the labels holds for the others.
fn read_sets(
    run: &Run,
    wanted: Wanted,
    (tokenizer, interface): (Option<&Tokenizer>, &Interface),
    known: &mut Known,
) -> Result<Sets> {
    let data = &run.data;
    let is_native = interface.task != data::Task::Other;
    let mut read = |files: &[PathBuf], max_rows, labels_required, lengths| -> Result<Prepared> {
        let table = format::read(files, max_rows)?;
        let rules = known.clone();
        let options = PrepareOptions {
            task: interface.task,
            text_column: data.text_column.as_deref(),
            text_pair_column: data.text_pair_column.as_deref(),
            label_column: data.label_column.as_deref(),
            labels_required,
            labels: rules.rules(),
            forward_arguments: &interface.forward_arguments,
            label_names: &interface.label_names,
            remove_unused_columns: data.remove_unused_columns,
            tokens: interface.tokens,
            length_column: Some(data.length_column_name.as_str()).filter(|_| lengths),
        };
        let prepared = prepare(table, tokenizer, &options)?;
        if let Some(summary) = &prepared.labels {
            known.learn(summary);
        }
        Ok(prepared)
    };
    Ok(Sets {
        train: match wanted.train {
            true => Some(read(
                &data.train_files,
                data.max_train_samples,
                is_native,
                data.group_by_length,
            )?),
            false => None,
        },
        validation: match wanted.validation {
            true => data
                .validation_sets
                .iter()
                .map(|set| {
                    let prepared = read(&set.files, data.max_eval_samples, is_native, false)?;
                    Ok((set.name.clone(), prepared))
                })
                .collect::<Result<_>>()?,
            false => Vec::new(),
        },
        test: match wanted.test {
            true => Some(read(
                &data.test_files,
                data.max_predict_samples,
                false,
                false,
            )?),
            false => None,
        },
    })
}

impl Inputs {
    /// Class names by number; empty if classes have no names.
    pub(super) fn class_names(&self) -> Vec<String> {
        self.config
            .as_ref()
            .map(|config| config.labels.clone())
            .unwrap_or_default()
    }

    /// Loads batches of the training set in the reference's order.
    pub(super) fn train_loader(&self, run: &Run, prepared: Prepared) -> Result<Loader> {
        let batch_size = run.train.batch_size;
        let sampler: Box<dyn Sampler> = match (prepared.lengths, run.data.data_seed) {
            (Some(lengths), _) => Box::new(LengthGrouped::new(
                lengths,
                batch_size * run.train.gradient_accumulation_steps,
            )?),
            (None, Some(seed)) => Box::new(Random::seeded(seed)?),
            (None, None) => Box::new(Random::new()),
        };
        self.loader(&run.data, Arc::new(prepared.dataset), (sampler, batch_size))
    }

    /// Loads batches of an evaluation or test set in file order.
    pub(super) fn evaluation_loader(&self, run: &Run, prepared: Prepared) -> Result<Loader> {
        self.loader(
            &run.data,
            Arc::new(prepared.dataset),
            (Box::new(Sequential), run.evaluation.batch_size),
        )
    }

    fn loader(
        &self,
        data: &run::Data,
        dataset: Arc<Table>,
        order: (Box<dyn Sampler>, usize),
    ) -> Result<Loader> {
        let (sampler, batch_size) = order;
        let collator = self.collator(data)?;
        Loader::new(LoaderParts {
            dataset,
            sampler,
            collator,
            batch_size,
            drop_last: data.drop_last,
        })
    }

    fn collator(&self, data: &run::Data) -> Result<Box<dyn Collator>> {
        let Some(tokenizer) = &self.tokenizer else {
            return Ok(Box::new(DefaultCollator));
        };
        let mut settings = tokenizer.padding();
        settings.pad_to_multiple_of = data.pad_to_multiple_of;
        if data.pad_to_max_length {
            let length = self.max_length.ok_or_else(|| {
                Failure::usage("pad_to_max_length needs a length, and neither the tokenizer nor the model has one")
                    .hint("set --max_length")
            })?;
            settings.pad_to = PadTo::Length(length);
        }
        Ok(match self.task {
            Some(Task::TokenClassification) => Box::new(TokenClassificationCollator::new(settings)),
            _ => Box::new(PaddingCollator::new(settings)),
        })
    }
}
