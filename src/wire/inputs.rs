//! Model and data of a run: files into tables, tables into rows, rows and configuration into a model.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use tch::Kind;

use super::plugins::{MakeCollator, Plugins};
use super::preparation::{Interface, Known, Preparation, Purpose};
use super::{collators, device};
use crate::config::run::{Backend, Command, Dtype, ModelForm, Run};
use crate::data::collator::PaddingCollator;
use crate::data::format::FileStream;
use crate::data::loader::Batching;
use crate::data::sampler::{LengthGrouped, Random, Sequential};
use crate::data::{self, Collator, Loader, Prepared, Sampler, TokenLimits, Tokenizer, format};
use crate::model::architecture::{self, LoadOptions};
use crate::model::package::{self, PackageOptions};
use crate::model::torchscript::{self, ScriptOptions};
use crate::model::{Model, ModelConfig, ProblemType, Task};

/// Everything that was read.
pub(super) struct Inputs {
    pub model: Box<dyn Model>,
    pub config: Option<ModelConfig>,
    /// `None`: a TorchScript module.
    pub task: Option<Task>,
    pub problem_type: Option<ProblemType>,
    pub tokenizer: Option<Arc<Tokenizer>>,
    pub sets: Sets,
    pub max_length: Option<usize>,
    /// In the place of the built-in collators.
    pub plugin_collators: Option<MakeCollator>,
}

/// Rows of a set: all of them, or where they are read from.
pub(super) enum Set {
    Read(Box<Prepared>),
    Streamed(Box<(FileStream, Preparation)>),
}

impl Set {
    /// `None`: not known before they are read.
    pub fn num_rows(&self) -> Option<usize> {
        match self {
            Self::Read(prepared) => Some(prepared.dataset.rows()),
            Self::Streamed(_) => None,
        }
    }
}

/// The sets that were wanted.
pub(super) struct Sets {
    pub train: Option<Set>,
    /// With their names; empty if not wanted.
    pub validation: Vec<(String, Set)>,
    pub test: Option<Set>,
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

/// Names in the order of their numbers.
fn names(label2id: &BTreeMap<String, i64>) -> Vec<String> {
    let mut pairs: Vec<_> = label2id.iter().collect();
    pairs.sort_by_key(|(_, id)| **id);
    pairs.into_iter().map(|(name, _)| name.clone()).collect()
}

/// Reads model and data; plugins get the tokenizer.
pub(super) fn read(run: &Run, wanted: Wanted, plugins: &Plugins) -> Result<Inputs> {
    let collators = plugins.collators();
    let inputs = match run.model.form {
        ModelForm::Folder => read_native(run, wanted, collators),
        ModelForm::Torchscript => {
            let model = torchscript::load(&ScriptOptions {
                path: run.model.path.clone(),
                kind: kind(run.model.dtype),
                label_names: run.model.label_names.clone(),
                device: device::of(run),
                fuses: run.model.compilation == Some(Backend::Ts),
            })?;
            read_foreign(run, wanted, (Box::new(model), collators))
        }
        ModelForm::Package => {
            let model = package::load(&PackageOptions {
                path: run.model.path.clone(),
                kind: kind(run.model.dtype),
                label_names: run.model.label_names.clone(),
                device: device::of(run),
            })?;
            read_foreign(run, wanted, (Box::new(model), collators))
        }
    }?;
    if let Some(tokenizer) = &inputs.tokenizer {
        plugins.set_tokenizer(tokenizer);
    }
    Ok(inputs)
}

fn read_native(
    run: &Run,
    wanted: Wanted,
    plugin_collators: Option<MakeCollator>,
) -> Result<Inputs> {
    let config = ModelConfig::read(&run.model.path)?;
    let named = run.model.task.as_deref().map(Task::parse).transpose()?;
    // Training fine-tunes published encoders with a new head; what is evaluated has the head that it was saved with.
    let saved = || match run.command {
        Command::Train => None,
        Command::Evaluate | Command::Predict => architecture::saved_task(&config),
    };
    let task = architecture::task_of(&config, named.or_else(saved))?;
    let folder = run.model.tokenizer.as_ref().unwrap_or(&run.model.path);
    let mut tokenizer = Tokenizer::load(folder)
        .with_context(|| format!("the tokenizer of {}", folder.display()))?;
    let interface = architecture::interface(&config, Some(task))?;
    let max_length = tokenizer.limit(run.data.max_length, interface.max_positions)?;
    let tokenizer = Arc::new(tokenizer);
    if plugin_collators.is_none() {
        let collator = collators::name(&run.data, Some(task), true);
        collators::check(&run.data, Some(task), collator)?;
    }
    let interface = native_interface(run, task, interface);
    let known = Known::of_config(Some(&config));
    let mut preparation = Preparation::new(&run.data, Some(tokenizer.clone()), (interface, known));
    let sets = read_sets(run, wanted, &mut preparation)?;
    let known = preparation.known;
    let loaded = architecture::load(&LoadOptions {
        path: run.model.path.clone(),
        is_new: run.model.is_new,
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
        plugin_collators,
    })
}

fn native_interface(run: &Run, task: Task, network: architecture::Interface) -> Interface {
    let own_labels = || vec!["labels".to_owned()];
    Interface {
        task: match task {
            Task::SequenceClassification => data::Task::SequenceClassification,
            Task::TokenClassification => data::Task::TokenClassification,
            Task::MaskedLm => data::Task::LanguageModel,
        },
        forward_arguments: network.arguments,
        label_names: run.model.label_names.clone().unwrap_or_else(own_labels),
        tokens: TokenLimits {
            vocabulary: network.vocabulary,
            positions: network.max_positions,
        },
    }
}

/// A model that brings its own interface.
fn read_foreign(
    run: &Run,
    wanted: Wanted,
    (model, plugin_collators): (Box<dyn Model>, Option<MakeCollator>),
) -> Result<Inputs> {
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
    let collator = collators::name(&run.data, None, tokenizer.is_some());
    if plugin_collators.is_none() {
        collators::check(&run.data, None, collator)?;
    }
    let makes_labels = collators::makes_labels(collator, None);
    let interface = Interface {
        task: match makes_labels {
            true => data::Task::LanguageModel,
            false => data::Task::Other,
        },
        forward_arguments: model.forward_arguments().to_vec(),
        label_names: model.label_names(),
        tokens: TokenLimits::default(),
    };
    let tokenizer = tokenizer.map(Arc::new);
    let mut preparation =
        Preparation::new(&run.data, tokenizer.clone(), (interface, Known::default()));
    let sets = read_sets(run, wanted, &mut preparation)?;
    Ok(Inputs {
        model,
        config: None,
        task: None,
        problem_type: None,
        tokenizer,
        sets,
        max_length,
        plugin_collators,
    })
}

/// Reads the sets that are wanted. What the training set says of the labels holds for the others.
fn read_sets(run: &Run, wanted: Wanted, preparation: &mut Preparation) -> Result<Sets> {
    let data = &run.data;
    let mut read = |files: &[PathBuf], max_rows, purpose: Purpose| -> Result<Set> {
        preparation.purpose = purpose;
        if data.streaming {
            let stream = FileStream::new(files, max_rows)?;
            preparation.check_stream(&stream)?;
            return Ok(Set::Streamed(Box::new((stream, preparation.clone()))));
        }
        let prepared = preparation.prepare(format::read(files, max_rows)?)?;
        if purpose != Purpose::Prediction {
            preparation.learn(&prepared);
        }
        Ok(Set::Read(Box::new(prepared)))
    };
    let train = match wanted.train {
        true => {
            let lengths = data.group_by_length;
            let purpose = Purpose::Training { lengths };
            Some(read(&data.train_files, data.max_train_samples, purpose)?)
        }
        false => None,
    };
    let mut validation = Vec::new();
    for set in data.validation_sets.iter().filter(|_| wanted.validation) {
        let rows = read(&set.files, data.max_eval_samples, Purpose::Evaluation)?;
        validation.push((set.name.clone(), rows));
    }
    let test = match wanted.test {
        true => {
            let max_rows = data.max_predict_samples;
            Some(read(&data.test_files, max_rows, Purpose::Prediction)?)
        }
        false => None,
    };
    Ok(Sets {
        train,
        validation,
        test,
    })
}

/// The order of training: by length if there are lengths, else at random.
pub(crate) fn train_sampler(run: &Run, lengths: Option<Vec<usize>>) -> Result<Box<dyn Sampler>> {
    Ok(match (lengths, run.data.data_seed) {
        (Some(lengths), _) => Box::new(LengthGrouped::new(
            lengths,
            run.train.batch_size * run.train.gradient_accumulation_steps,
        )?),
        (None, Some(seed)) => Box::new(Random::seeded(seed)?),
        (None, None) => Box::new(Random::new()),
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

    /// Loads batches of the training set in the reference's order; a stream in its own.
    pub(super) fn train_loader(&self, run: &Run, set: Set) -> Result<Loader> {
        let sampler = match &set {
            Set::Read(prepared) => train_sampler(run, prepared.lengths.clone())?,
            Set::Streamed(_) => Box::new(Sequential),
        };
        let collator = self.collator(&run.data, true)?;
        loader(
            set,
            (sampler, batching(run, (collator, run.train.batch_size))),
        )
    }

    /// Loads batches of an evaluation set in file order.
    pub(super) fn evaluation_loader(&self, run: &Run, set: Set) -> Result<Loader> {
        let collator = self.collator(&run.data, false)?;
        in_file_order(run, set, collator)
    }

    /// Loads batches of a test set in file order; a masked language model is given the rows with what is hidden in them, and
    /// nothing more is hidden.
    pub(super) fn test_loader(&self, run: &Run, set: Set) -> Result<Loader> {
        if self.task != Some(Task::MaskedLm) {
            return self.evaluation_loader(run, set);
        }
        let tokenizer = self.tokenizer.as_ref();
        let tokenizer = tokenizer.context("a masked language model has a tokenizer")?;
        let collator = PaddingCollator::new(self.padding(tokenizer, &run.data)?);
        in_file_order(run, set, Box::new(collator))
    }
}

fn in_file_order(run: &Run, set: Set, collator: Box<dyn Collator>) -> Result<Loader> {
    let batching = batching(run, (collator, run.evaluation.batch_size));
    loader(set, (Box::new(Sequential), batching))
}

fn loader(set: Set, (sampler, batching): (Box<dyn Sampler>, Batching)) -> Result<Loader> {
    match set {
        Set::Read(prepared) => Loader::new((Arc::new(prepared.dataset), sampler), batching),
        Set::Streamed(parts) => {
            let (stream, preparation) = *parts;
            Loader::streaming((Box::new(stream), Box::new(preparation)), batching)
        }
    }
}

/// What the run says of its loaders.
pub(crate) fn batching(run: &Run, (collator, batch_size): (Box<dyn Collator>, usize)) -> Batching {
    Batching {
        drop_last: run.data.drop_last,
        workers: run.data.num_workers,
        pin_for: Some(device::of(run)).filter(|device| run.data.pin_memory && device.is_cuda()),
        ..Batching::new(collator, batch_size)
    }
}
