//! `config.json` of a Hugging Face folder: labels, problem type, and writing it back.
//!
//! Keys that nothing here knows are kept, so that a saved model can be loaded by whatever wrote it. The shape of a
//! network is read by its architecture from [`ModelConfig::keys`].

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Map, Value};
use tch::Kind;

use crate::checkpoint::layout;
use crate::data::labels::MAX_CLASSES;
pub use crate::data::labels::ProblemType;
use crate::error::Failure;

/// The release whose semantics this program follows; written as `transformers_version`.
const TRANSFORMERS_VERSION: &str = "4.34.0";

/// What a model is built for; decides its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// One output row for each example.
    SequenceClassification,
    /// One output row for each token.
    TokenClassification,
    /// The hidden tokens, one of the vocabulary for each.
    MaskedLm,
}

impl Task {
    const ALL: [Self; 3] = [
        Self::SequenceClassification,
        Self::TokenClassification,
        Self::MaskedLm,
    ];

    /// The name of an argument or a message.
    pub fn name(self) -> &'static str {
        match self {
            Self::SequenceClassification => "sequence-classification",
            Self::TokenClassification => "token-classification",
            Self::MaskedLm => "masked-lm",
        }
    }

    /// The task with this name.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|task| task.name() == name)
            .ok_or_else(|| {
                let known: Vec<_> = Self::ALL.iter().map(|task| task.name()).collect();
                Failure::usage(format!(
                    "task {name:?} is not known; expected {}",
                    known.join(" or ")
                ))
                .into()
            })
    }
}

/// The configuration of a model folder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Every key as it was read.
    pub keys: Map<String, Value>,
    /// The file, for messages.
    pub source: PathBuf,
    /// Class names; the index is the class.
    pub labels: Vec<String>,
    /// What the labels are, if it is known.
    pub problem_type: Option<ProblemType>,
}

impl ModelConfig {
    /// Reads `config.json` of a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let source = folder.join(layout::CONFIG);
        let text = fs::read(&source).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => anyhow::Error::from(
                Failure::data(format!("{} does not exist", source.display()))
                    .hint("a model is a folder with config.json, weights and tokenizer files, or a TorchScript file"),
            ),
            _ => anyhow::Error::from(error).context(format!("reading {}", source.display())),
        })?;
        let keys = serde_json::from_slice::<Map<String, Value>>(&text).map_err(|error| {
            Failure::data(format!("{}: not a JSON object: {error}", source.display()))
        })?;
        Self::new(keys, source)
    }

    /// A configuration from its keys; `source` is named in errors.
    pub fn new(keys: Map<String, Value>, source: PathBuf) -> Result<Self> {
        let labels = labels_of(&keys)
            .map_err(|message| Failure::data(format!("{}: {message}", source.display())))?;
        let problem_type = match keys.get("problem_type") {
            None | Some(Value::Null) => None,
            Some(value) => Some(value.as_str().and_then(ProblemType::parse).ok_or_else(|| {
                let known = ProblemType::ALL.map(ProblemType::name).join(", ");
                Failure::data(format!(
                    "{}: problem_type {value} is not one of {known}",
                    source.display()
                ))
            })?),
        };
        Ok(Self {
            keys,
            source,
            labels,
            problem_type,
        })
    }

    /// The family of the network (`bert`).
    pub fn model_type(&self) -> Option<&str> {
        self.keys.get("model_type").and_then(Value::as_str)
    }

    /// Class names of the networks that were saved with this configuration.
    pub fn architectures(&self) -> Vec<&str> {
        let names = self.keys.get("architectures").and_then(Value::as_array);
        names
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default()
    }

    /// Number of outputs of the head.
    pub fn num_labels(&self) -> usize {
        self.labels.len()
    }

    /// Whether the file names its classes itself (`id2label`), rather than leaving the default of two.
    pub fn has_own_labels(&self) -> bool {
        self.keys
            .get("id2label")
            .is_some_and(|value| !value.is_null())
    }

    /// As assigning `num_labels`: names are kept if their number is the same, else they become `LABEL_<i>`.
    pub fn set_num_labels(&mut self, num_labels: usize) {
        if self.labels.len() != num_labels {
            self.labels = default_labels(num_labels);
        }
    }

    /// The longest sequence that the network has positions for.
    pub fn max_positions(&self) -> Option<usize> {
        self.keys
            .get("max_position_embeddings")
            .and_then(Value::as_u64)
            .map(|positions| positions as usize)
    }

    /// Outputs left out of predictions by default.
    pub fn keys_to_ignore_at_inference(&self) -> Vec<String> {
        let names = self
            .keys
            .get("keys_to_ignore_at_inference")
            .and_then(Value::as_array);
        names
            .map(|names| {
                names
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect()
            })
            .unwrap_or_default()
    }

    /// What is written beside weights of class `architecture` and type `kind`: the keys as read, the labels and the
    /// problem type as they are now, sorted as Hugging Face sorts them.
    pub fn to_json(&self, architecture: &str, kind: Kind) -> Value {
        let mut keys = self.keys.clone();
        keys.insert("architectures".to_owned(), Value::from(vec![architecture]));
        keys.insert("torch_dtype".to_owned(), Value::from(dtype_name(kind)));
        if keys.contains_key("dtype") {
            keys.insert("dtype".to_owned(), Value::from(dtype_name(kind)));
        }
        keys.insert(
            "transformers_version".to_owned(),
            Value::from(TRANSFORMERS_VERSION),
        );
        keys.remove("num_labels");
        if self.has_own_labels() || self.labels != default_labels(2) {
            let ids = self.labels.iter().enumerate();
            let id2label: Map<_, _> = ids
                .clone()
                .map(|(id, name)| (id.to_string(), Value::from(name.as_str())))
                .collect();
            let mut label2id: Map<_, _> = ids
                .map(|(id, name)| (name.clone(), Value::from(id)))
                .collect();
            label2id.sort_keys();
            keys.insert("id2label".to_owned(), Value::Object(id2label));
            keys.insert("label2id".to_owned(), Value::Object(label2id));
        } else {
            keys.remove("label2id");
        }
        if let Some(problem_type) = self.problem_type {
            keys.insert("problem_type".to_owned(), Value::from(problem_type.name()));
        }
        keys.sort_keys();
        Value::Object(keys)
    }
}

fn default_labels(num_labels: usize) -> Vec<String> {
    (0..num_labels).map(|id| format!("LABEL_{id}")).collect()
}

fn labels_of(keys: &Map<String, Value>) -> Result<Vec<String>, String> {
    match keys.get("id2label") {
        Some(Value::Object(id2label)) => {
            let name = |value: &Value| {
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned)
            };
            in_order(
                id2label
                    .iter()
                    .map(|(id, value)| (id.parse().ok(), name(value)))
                    .collect(),
                "id2label",
            )
        }
        Some(Value::Null) | None => match keys.get("num_labels") {
            Some(value) => match value.as_u64() {
                Some(count) if (1..=MAX_CLASSES as u64).contains(&count) => {
                    Ok(default_labels(count as usize))
                }
                _ => Err(format!(
                    "num_labels {value} is not a number from 1 to {MAX_CLASSES}"
                )),
            },
            None => Ok(default_labels(2)),
        },
        Some(_) => Err("id2label is not an object".to_owned()),
    }
}

/// The names sorted by id; ids must be 0, 1, 2, ... without a gap, because an id is a row of the head.
fn in_order(mut pairs: Vec<(Option<u64>, String)>, key: &str) -> Result<Vec<String>, String> {
    if pairs.is_empty() {
        return Err(format!("{key} is empty"));
    }
    pairs.sort_by_key(|(id, _)| *id);
    for (expected, (id, name)) in pairs.iter().enumerate() {
        if *id != Some(expected as u64) {
            return Err(format!(
                "{key}: the ids are not 0 to {}: look at {name:?}",
                pairs.len() - 1
            ));
        }
    }
    Ok(pairs.into_iter().map(|(_, name)| name).collect())
}

/// The name of a floating point type as torch spells it.
fn dtype_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Double => "float64",
        Kind::BFloat16 => "bfloat16",
        Kind::Half => "float16",
        _ => "float32",
    }
}

/// Reads the part of `keys` that an architecture declares.
pub fn section<T: serde::de::DeserializeOwned>(config: &ModelConfig) -> Result<T> {
    let read = |keys| serde_json::from_value::<T>(Value::Object(keys));
    read(config.keys.clone()).map_err(|error| {
        // The error does not say which key it is about; alone, only that one fails.
        let alone =
            |(key, value): (&String, &Value)| Map::from_iter([(key.clone(), value.clone())]);
        let wrong = config
            .keys
            .iter()
            .find(|entry| read(alone(*entry)).is_err());
        let key = wrong.map_or_else(String::new, |(key, _)| format!("{key}: "));
        Failure::data(format!("{}: {key}{error}", config.source.display())).into()
    })
}

#[cfg(test)]
mod tests {
    use super::{ModelConfig, ProblemType};
    use serde_json::{Value, json};
    use tch::Kind;

    fn config(keys: Value) -> anyhow::Result<ModelConfig> {
        let Value::Object(keys) = keys else {
            panic!("an object")
        };
        ModelConfig::new(keys, "config.json".into())
    }

    #[test]
    fn labels_come_from_the_file_or_are_two() {
        let cases = [
            (json!({}), vec!["LABEL_0", "LABEL_1"]),
            (
                json!({"num_labels": 3}),
                vec!["LABEL_0", "LABEL_1", "LABEL_2"],
            ),
            (
                json!({"id2label": {"1": "yes", "0": "no"}, "num_labels": 7}),
                vec!["no", "yes"],
            ),
        ];
        for (keys, labels) in cases {
            assert_eq!(
                config(keys.clone()).expect("valid").labels,
                labels,
                "{keys}"
            );
        }
        for keys in [
            json!({"id2label": {"0": "a", "2": "b"}}),
            json!({"id2label": {"x": "a"}}),
            json!({"id2label": []}),
            json!({"num_labels": 0}),
            json!({"id2label": {}}),
            json!({"problem_type": "guess"}),
        ] {
            assert!(config(keys.clone()).is_err(), "{keys}");
        }
    }

    #[test]
    fn a_new_number_of_labels_renames_them() {
        let mut config = config(json!({"id2label": {"0": "no", "1": "yes"}})).expect("valid");
        config.set_num_labels(2);
        assert_eq!(config.labels, ["no", "yes"]);
        config.set_num_labels(1);
        assert_eq!(config.labels, ["LABEL_0"]);
    }

    #[test]
    fn what_is_written_is_what_was_read_and_what_changed() {
        let mut config =
            config(json!({"zeta": [1], "model_type": "bert", "dtype": "float32"})).expect("valid");
        let written = config.to_json("BertForSequenceClassification", Kind::Float);
        assert_eq!(
            serde_json::to_string(&written).expect("JSON"),
            "{\"architectures\":[\"BertForSequenceClassification\"],\"dtype\":\"float32\",\"model_type\":\"bert\",\
             \"torch_dtype\":\"float32\",\"transformers_version\":\"4.34.0\",\"zeta\":[1]}"
        );
        config.labels = vec!["b".to_owned(), "a".to_owned()];
        config.problem_type = Some(ProblemType::infer(2, true));
        let written = config.to_json("BertForSequenceClassification", Kind::Double);
        assert_eq!(written["id2label"], json!({"0": "b", "1": "a"}));
        assert_eq!(written["label2id"], json!({"a": 1, "b": 0}));
        assert_eq!(written["problem_type"], "single_label_classification");
        assert_eq!(written["torch_dtype"], "float64");
    }
}
