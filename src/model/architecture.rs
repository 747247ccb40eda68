//! The native architectures, one line each, and loading a Hugging Face folder with one of them.

use std::path::PathBuf;

use anyhow::Result;
use serde::Deserialize;
use tch::Kind;

use super::Model;
use super::bert;
use super::config::{ModelConfig, ProblemType, Task, section};
use super::parameters::{Initialization, Naming, ParameterSource};
use super::weights::LoadReport;
use crate::checkpoint::load::read_weights;
use crate::error::Failure;

/// Makes a network from its blueprint and its weights.
type Build = fn(Blueprint<'_>, ParameterSource) -> Result<(Box<dyn Model>, LoadReport)>;

/// One class of Hugging Face that is implemented here.
struct Architecture {
    model_type: &'static str,
    class: &'static str,
    task: Task,
    /// Arguments of `forward`.
    arguments: &'static [&'static str],
    naming: fn(&'static str) -> Naming,
    build: Build,
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
    Architecture { model_type: "bert", class: bert::MASKED_LM, task: Task::MaskedLm, arguments: bert::ARGUMENTS, naming: bert::naming, build: bert::build },
];

/// What to load, and what the data says about the labels.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Folder with `config.json` and weights.
    pub path: PathBuf,
    /// Draw all weights from the default generator, as a model made of a configuration; the folder need not have any.
    pub is_new: bool,
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
        formatter
            .debug_struct("Loaded")
            .field("report", &self.report)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The task that [`load`] would build the folder for.
pub fn task_of(config: &ModelConfig, wanted: Option<Task>) -> Result<Task> {
    Ok(choose(config, wanted)?.task)
}

/// The task of the head that a folder was saved with; `None`: it has none that is implemented here.
pub fn saved_task(config: &ModelConfig) -> Option<Task> {
    let named = config.architectures();
    let saved = ARCHITECTURES
        .iter()
        .find(|architecture| named.contains(&architecture.class));
    saved.map(|architecture| architecture.task)
}

/// What rows must look like for the network that [`load`] would build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Arguments of `forward`.
    pub arguments: Vec<String>,
    /// Positions it has; longer rows must be truncated.
    pub max_positions: Option<usize>,
    /// Token ids it has embeddings for.
    pub vocabulary: Option<usize>,
}

/// The interface of the network that [`load`] would build, without its weights.
pub fn interface(config: &ModelConfig, wanted: Option<Task>) -> Result<Interface> {
    let arguments = choose(config, wanted)?
        .arguments
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    let size = |key: &str| {
        let size = config.keys.get(key).and_then(serde_json::Value::as_u64);
        size.map(usize::try_from).transpose()
    };
    Ok(Interface {
        arguments,
        max_positions: size("max_position_embeddings")?,
        vocabulary: size("vocab_size")?,
    })
}

/// Loads the weights of a folder into the architecture that its configuration names. Head weights that are missing are
/// initialised from the default generator.
pub fn load(options: &LoadOptions) -> Result<Loaded> {
    let mut config = ModelConfig::read(&options.path)?;
    let architecture = choose(&config, options.task)?;
    apply_labels(&mut config, options)?;
    let initialization = Initialization {
        kind: options.kind,
        range: initializer_range(&config)?,
        is_new: options.is_new,
    };
    let (tensors, origin) = if options.is_new {
        (Vec::new(), config.source.clone())
    } else {
        let weights = read_weights(&options.path)?;
        (weights.tensors, weights.source)
    };
    let naming = (architecture.naming)(architecture.class);
    let source = ParameterSource::new(tensors, origin, (naming, initialization));
    let blueprint = Blueprint {
        config: &config,
        task: architecture.task,
        class: architecture.class,
        kind: options.kind,
    };
    let (model, report) = (architecture.build)(blueprint, source)?;
    Ok(Loaded {
        model,
        report,
        config,
        task: architecture.task,
    })
}

fn choose(config: &ModelConfig, wanted: Option<Task>) -> Result<&'static Architecture> {
    let source = config.source.display();
    let hint = format!(
        "native architectures are {}; any other model can come as a TorchScript file",
        supported()
    );
    let Some(model_type) = config.model_type() else {
        return Err(Failure::data(format!("{source}: no model_type"))
            .hint(hint)
            .into());
    };
    let family: Vec<_> = ARCHITECTURES
        .iter()
        .filter(|architecture| architecture.model_type == model_type)
        .collect();
    if family.is_empty() {
        return Err(Failure::data(format!(
            "{source}: model_type {model_type:?} is not supported"
        ))
        .hint(hint)
        .into());
    }
    let named = config.architectures();
    let saved = family
        .iter()
        // Published encoders name the head they were pretrained with: it is built only when it is asked for.
        .filter(|architecture| architecture.task != Task::MaskedLm)
        .find(|architecture| named.contains(&architecture.class))
        .map(|architecture| architecture.task);
    let task = wanted.or(saved).unwrap_or(Task::SequenceClassification);
    family
        .into_iter()
        .find(|architecture| architecture.task == task)
        .ok_or_else(|| {
            Failure::data(format!(
                "{source}: {model_type} is not implemented for {}",
                task.name()
            ))
            .hint(hint)
            .into()
        })
}

fn supported() -> String {
    let classes: Vec<_> = ARCHITECTURES
        .iter()
        .map(|architecture| architecture.class)
        .collect();
    classes.join(", ")
}

fn apply_labels(config: &mut ModelConfig, options: &LoadOptions) -> Result<()> {
    if let Some(labels) = &options.labels {
        config.labels.clone_from(labels);
    }
    if let Some(num_labels) = options.num_labels {
        if num_labels == 0 {
            return Err(
                Failure::data("the data has no labels: a head needs at least one output").into(),
            );
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
    Err(Failure::data(format!(
        "{}: initializer_range {range} is not a standard deviation",
        config.source.display()
    ))
    .into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Map, Value, json};
    use tch::{Kind, Tensor};

    use super::{LoadOptions, Loaded, load};
    use crate::model::{ProblemType, Task};
    use crate::torch;

    type Tensors = Vec<(String, Tensor)>;

    fn recorded() -> (Map<String, Value>, Tensors) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden/init_toy");
        let config = std::fs::read_to_string(folder.join("config.json")).expect("a file");
        let tensors = Tensor::read_safetensors(folder.join("model.safetensors")).expect("weights");
        (serde_json::from_str(&config).expect("JSON"), tensors)
    }

    /// Loads the recorded model after `change`.
    fn load_changed(
        change: impl FnOnce(&mut Map<String, Value>, &mut Tensors, &mut LoadOptions),
    ) -> anyhow::Result<Loaded> {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut config, mut tensors) = recorded();
        let mut options = LoadOptions {
            path: folder.path().to_owned(),
            is_new: false,
            task: None,
            kind: Kind::Float,
            num_labels: None,
            labels: None,
            problem_type: None,
        };
        change(&mut config, &mut tensors, &mut options);
        std::fs::write(
            folder.path().join("config.json"),
            Value::Object(config).to_string(),
        )
        .expect("written");
        let pairs: Vec<_> = tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
            .collect();
        Tensor::write_safetensors(&pairs, folder.path().join("model.safetensors"))
            .expect("written");
        load(&options)
    }

    fn rename(tensors: &mut Tensors, change: impl Fn(&str) -> Option<String>) {
        *tensors = tensors
            .drain(..)
            .filter_map(|(name, tensor)| Some((change(&name)?, tensor)))
            .collect();
    }

    /// A head as the reference draws it with seed 42.
    fn new_head(task: &str, name: &str) -> Tensor {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/new_heads.safetensors");
        let heads = Tensor::read_safetensors(path).expect("recorded heads");
        find(&heads, &format!("{task}.{name}")).shallow_clone()
    }

    fn find<'a>(tensors: &'a [(String, Tensor)], name: &str) -> &'a Tensor {
        &tensors.iter().find(|(key, _)| key == name).expect(name).1
    }

    #[test]
    fn a_bare_encoder_gets_a_new_head() {
        let _turn = torch::testing::exclusive();
        torch::manual_seed(42).expect("a seed");
        let loaded = load_changed(|config, tensors, options| {
            config.insert("architectures".to_owned(), json!(["BertModel"]));
            rename(tensors, |name| {
                name.strip_prefix("bert.")
                    .filter(|name| !name.starts_with("pooler"))
                    .map(str::to_owned)
            });
            options.labels = Some(vec![
                "no".to_owned(),
                "perhaps".to_owned(),
                "yes".to_owned(),
            ]);
            options.num_labels = Some(3);
        });
        let Loaded {
            model,
            report,
            config,
            task,
        } = loaded.expect("a model");
        assert_eq!(
            report.missing,
            [
                "bert.pooler.dense.weight",
                "bert.pooler.dense.bias",
                "classifier.weight",
                "classifier.bias"
            ]
        );
        assert!(
            report.unexpected.is_empty()
                && report.messages()[0]
                    .contains("newly initialized: ['bert.pooler.dense.weight', ")
        );
        assert_eq!(
            (config.num_labels(), task),
            (3, Task::SequenceClassification)
        );

        // As the reference draws them (tests/fixtures/new_heads.py).
        let state = model.state_dict();
        for name in ["bert.pooler.dense.weight", "classifier.weight"] {
            assert!(
                find(&state, name).equal(&new_head("sequence", name)),
                "{name}"
            );
        }
        assert_eq!(
            find(&state, "classifier.bias")
                .abs()
                .sum(None)
                .double_value(&[]),
            0.0
        );
        let words = "bert.embeddings.word_embeddings.weight";
        assert!(find(&state, words).equal(find(&recorded().1, words)));
        assert!(
            model
                .parameters()
                .iter()
                .all(|parameter| parameter.tensor.requires_grad() && parameter.tensor.is_leaf())
        );
        let written = model.config().expect("a configuration");
        assert_eq!(
            written["architectures"],
            json!(["BertForSequenceClassification"])
        );
        assert_eq!(
            written["label2id"],
            json!({"no": 0, "perhaps": 1, "yes": 2})
        );
    }

    #[test]
    fn old_names_and_buffers_are_accepted() {
        let loaded = load_changed(|_, tensors, _| {
            rename(tensors, |name| {
                Some(
                    name.replace("LayerNorm.weight", "LayerNorm.gamma")
                        .replace("LayerNorm.bias", "LayerNorm.beta"),
                )
            });
            tensors.push((
                "bert.embeddings.position_ids".to_owned(),
                Tensor::arange(128, tch::kind::INT64_CPU).view([1, 128]),
            ));
        });
        let report = loaded.expect("a model").report;
        assert!(report.messages().is_empty(), "{report:?}");
    }

    #[test]
    fn another_task_leaves_the_pooler_unused() {
        let loaded = load_changed(|_, _, options| options.task = Some(Task::TokenClassification))
            .expect("a model");
        let mut unexpected = loaded.report.unexpected.clone();
        unexpected.sort();
        assert_eq!(
            unexpected,
            ["bert.pooler.dense.bias", "bert.pooler.dense.weight"]
        );
        assert_eq!(
            loaded.model.config().expect("a configuration")["architectures"],
            json!(["BertForTokenClassification"])
        );
        let mut model = loaded.model;
        let ids = Tensor::from_slice(&[2_i64, 5, 3]).view([1, 3]);
        let batch = crate::data::Batch {
            columns: vec![("input_ids".into(), ids)],
        };
        let outputs = model.forward(&batch).expect("a pass");
        assert_eq!(outputs.logits().expect("logits").size(), [1, 3, 2]);
    }

    #[test]
    fn a_new_head_for_tokens_is_the_references() {
        let _turn = torch::testing::exclusive();
        torch::manual_seed(42).expect("a seed");
        let loaded = load_changed(|config, tensors, options| {
            for name in ["architectures", "id2label", "label2id"] {
                config.remove(name);
            }
            tensors.retain(|(name, _)| !name.contains("classifier") && !name.contains("pooler"));
            options.task = Some(Task::TokenClassification);
            options.num_labels = Some(3);
        });
        let state = loaded.expect("a model").model.state_dict();
        let name = "classifier.weight";
        assert!(find(&state, name).equal(&new_head("token", name)));
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_says_all() {
        type Change = fn(&mut Map<String, Value>, &mut Tensors, &mut LoadOptions);
        let cases: [(Change, &[&str]); 9] = [
            (
                |_, _, options| options.num_labels = Some(3),
                &[
                    "classifier.weight has shape [2, 32] in the file and [3, 32] in the model",
                    "classifier.bias has shape [2] in the file and [3]",
                ],
            ),
            (
                |config, _, _| drop(config.insert("vocab_size".to_owned(), json!(181))),
                &["word_embeddings.weight has shape [180, 32]"],
            ),
            (
                |config, _, _| drop(config.insert("model_type".to_owned(), json!("llama"))),
                &["model_type \"llama\" is not supported"],
            ),
            (
                |config, _, _| drop(config.remove("model_type")),
                &["no model_type"],
            ),
            (
                |config, _, _| drop(config.insert("num_attention_heads".to_owned(), json!(5))),
                &["hidden_size 32 is not a multiple of num_attention_heads 5"],
            ),
            (
                |config, _, _| drop(config.insert("hidden_size".to_owned(), json!("wide"))),
                &["config.json: hidden_size: invalid type: string \"wide\", expected i64"],
            ),
            (
                |config, _, _| {
                    drop(config.insert("position_embedding_type".to_owned(), json!("relative_key")))
                },
                &["position_embedding_type \"relative_key\" is not supported"],
            ),
            (
                |_, tensors, _| tensors[0].1 = tensors[0].1.to_kind(Kind::Int8),
                &["holds Int8; expected floating point"],
            ),
            (
                |_, tensors, _| {
                    rename(tensors, |name| {
                        Some(name.trim_start_matches("bert.").to_owned())
                    })
                },
                &["belongs to the head, but the names of the encoder lack `bert.`"],
            ),
        ];
        for (change, expected) in cases {
            let error = load_changed(change).expect_err(expected[0]);
            for expected in expected {
                assert!(
                    format!("{error:#}").contains(expected),
                    "{expected}: {error:#}"
                );
            }
            assert_eq!(crate::error::kind_of(&error), crate::error::Kind::Data);
        }
    }

    #[test]
    fn the_problem_of_the_data_goes_before_the_files() {
        let loaded = load_changed(|config, _, options| {
            config.insert("problem_type".to_owned(), json!("regression"));
            options.problem_type = Some(ProblemType::MultiLabelClassification);
        });
        assert_eq!(
            loaded.expect("a model").config.problem_type,
            Some(ProblemType::MultiLabelClassification)
        );
    }
}
