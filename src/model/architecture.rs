//! The native architectures, one line each, and loading a Hugging Face folder with one of them.

use std::path::PathBuf;

use anyhow::Result;
use serde::Deserialize;
use tch::Kind;

use super::bert;
use super::config::{ModelConfig, ProblemType, Task, section};
use super::parameters::{Initialization, Naming, ParameterSource};
use super::weights::LoadReport;
use super::Model;
use crate::checkpoint::load::read_weights;
use crate::error::Failure;

/// One class of Hugging Face that is implemented here.
struct Architecture {
    model_type: &'static str,
    class: &'static str,
    task: Task,
    /// Arguments of `forward`.
    arguments: &'static [&'static str],
    naming: fn(&'static str) -> Naming,
    build: fn(Blueprint<'_>, ParameterSource) -> Result<(Box<dyn Model>, LoadReport)>,
}

/// What an architecture builds a network from, besides its weights.
#[derive(Clone, Copy, Debug)]
pub struct Blueprint<'a> {
    /// Shape, labels, problem type.
    pub config: &'a ModelConfig,
    /// Decides the head.
    pub task: Task,
    /// Class name that is written to `config.json`.
    pub class: &'static str,
    /// Type of the parameters.
    pub kind: Kind,
}

#[rustfmt::skip]
const ARCHITECTURES: &[Architecture] = &[
    Architecture { model_type: "bert", class: "BertForSequenceClassification", task: Task::SequenceClassification, arguments: bert::ARGUMENTS, naming: bert::naming, build: bert::build },
    Architecture { model_type: "bert", class: "BertForTokenClassification", task: Task::TokenClassification, arguments: bert::ARGUMENTS, naming: bert::naming, build: bert::build },
];

/// What to load, and what the data says about the labels.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Folder with `config.json` and weights.
    pub path: PathBuf,
    /// `None`: from `architectures` in the configuration, else sequence classification.
    pub task: Option<Task>,
    /// Element type of the parameters.
    pub kind: Kind,
    /// Number of classes of the data; `None`: the configuration's.
    pub num_labels: Option<usize>,
    /// Class names of the data in the order of their ids; `None`: the configuration's.
    pub labels: Option<Vec<String>>,
    /// `None`: the configuration's, else decided by the first labels.
    pub problem_type: Option<ProblemType>,
}

/// A model that is ready to train.
pub struct Loaded {
    /// The network, in evaluation mode.
    pub model: Box<dyn Model>,
    /// What did not fit.
    pub report: LoadReport,
    /// The configuration with the labels of `options`.
    pub config: ModelConfig,
    /// What it was built for.
    pub task: Task,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Loaded").field("report", &self.report).field("config", &self.config).finish_non_exhaustive()
    }
}

/// The task that [`load`] would build the folder for.
pub fn task_of(config: &ModelConfig, wanted: Option<Task>) -> Result<Task> {
    Ok(choose(config, wanted)?.task)
}

/// What rows must look like for the network that [`load`] would build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Arguments of `forward`.
    pub arguments: Vec<String>,
    /// Positions it has; longer rows must be truncated.
    pub max_positions: Option<usize>,
}

/// The interface of the network that [`load`] would build, without its weights.
pub fn interface(config: &ModelConfig, wanted: Option<Task>) -> Result<Interface> {
    let arguments = choose(config, wanted)?.arguments.iter().map(|name| (*name).to_owned()).collect();
    let positions = config.keys.get("max_position_embeddings").and_then(serde_json::Value::as_u64);
    Ok(Interface { arguments, max_positions: positions.map(usize::try_from).transpose()? })
}

/// Loads the weights of a folder into the architecture that its configuration names. Head weights that are missing are
/// initialised from the default generator.
pub fn load(options: &LoadOptions) -> Result<Loaded> {
    let mut config = ModelConfig::read(&options.path)?;
    let architecture = choose(&config, options.task)?;
    apply_labels(&mut config, options)?;
    let initialization = Initialization { kind: options.kind, range: initializer_range(&config)? };
    let weights = read_weights(&options.path)?;
    let naming = (architecture.naming)(architecture.class);
    let source = ParameterSource::new(weights.tensors, weights.source, (naming, initialization));
    let blueprint = Blueprint { config: &config, task: architecture.task, class: architecture.class, kind: options.kind };
    let (model, report) = (architecture.build)(blueprint, source)?;
    Ok(Loaded { model, report, config, task: architecture.task })
}

fn choose(config: &ModelConfig, wanted: Option<Task>) -> Result<&'static Architecture> {
    let source = config.source.display();
    let hint = format!("native architectures are {}; any other model can come as a TorchScript file", supported());
    let Some(model_type) = config.model_type() else {
        return Err(Failure::data(format!("{source}: no model_type")).hint(hint).into());
    };
    let family: Vec<_> = ARCHITECTURES.iter().filter(|architecture| architecture.model_type == model_type).collect();
    if family.is_empty() {
        return Err(Failure::data(format!("{source}: model_type {model_type:?} is not supported")).hint(hint).into());
    }
    let named = config.architectures();
    let saved = family.iter().find(|architecture| named.contains(&architecture.class)).map(|architecture| architecture.task);
    let task = wanted.or(saved).unwrap_or(Task::SequenceClassification);
    family.into_iter().find(|architecture| architecture.task == task).ok_or_else(|| {
        Failure::data(format!("{source}: {model_type} is not implemented for {}", task.name())).hint(hint).into()
    })
}

fn supported() -> String {
    let classes: Vec<_> = ARCHITECTURES.iter().map(|architecture| architecture.class).collect();
    classes.join(", ")
}

fn apply_labels(config: &mut ModelConfig, options: &LoadOptions) -> Result<()> {
    if let Some(labels) = &options.labels {
        config.labels.clone_from(labels);
    }
    if let Some(num_labels) = options.num_labels {
        if num_labels == 0 {
            return Err(Failure::data("the data has no labels: a head needs at least one output").into());
        }
        config.set_num_labels(num_labels);
    }
    config.problem_type = options.problem_type.or(config.problem_type);
    Ok(())
}

fn initializer_range(config: &ModelConfig) -> Result<f64> {
    #[derive(Deserialize)]
    struct Section {
        #[serde(default = "default_range")]
        initializer_range: f64,
    }
    fn default_range() -> f64 {
        0.02
    }
    let range = section::<Section>(config)?.initializer_range;
    if range.is_finite() && range >= 0.0 {
        return Ok(range);
    }
    Err(Failure::data(format!("{}: initializer_range {range} is not a standard deviation", config.source.display())).into())
}
