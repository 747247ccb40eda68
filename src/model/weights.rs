//! Weights into a model: what was missing, unexpected or of another shape, and copying in place.
//!
//! Reading files belongs to `checkpoint`; making parameters from what was read to `model::parameters`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tch::Tensor;

use super::Model;
use crate::error::Failure;

/// A tensor whose shape is not the model's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongShape {
    /// Its name in the model.
    pub name: String,
    /// Shape in the file.
    pub found: Vec<i64>,
    /// Shape in the model.
    pub expected: Vec<i64>,
}

/// How weights and a model fit together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Class name of the model.
    pub class: String,
    /// Where the weights came from.
    pub source: PathBuf,
    /// In the model, not in the file: initialised or left as they were.
    pub missing: Vec<String>,
    /// In the file, not in the model: not used. Names as in the file.
    pub unexpected: Vec<String>,
    /// In both with different shapes.
    pub wrong_shapes: Vec<WrongShape>,
}

impl LoadReport {
    /// The messages of Hugging Face for what did not fit; empty if everything did.
    pub fn messages(&self) -> Vec<String> {
        let mut messages = Vec::new();
        let (class, source) = (&self.class, self.source.display());
        if !self.unexpected.is_empty() {
            messages.push(format!(
                "some weights of the model checkpoint at {source} were not used when initializing {class}: {}",
                listed(&self.unexpected)
            ));
        }
        if !self.missing.is_empty() {
            messages.push(format!(
                "some weights of {class} were not initialized from the model checkpoint at {source} and are newly \
                 initialized: {}; you should probably train this model on a down-stream task to be able to use it for \
                 predictions and inference",
                listed(&self.missing)
            ));
        }
        messages
    }

    /// Itself, unless a shape is wrong: that is an error which lists all of them.
    pub fn fit(self) -> Result<Self> {
        if self.wrong_shapes.is_empty() {
            return Ok(self);
        }
        let mut message = format!(
            "{}: the weights do not fit {}",
            self.source.display(),
            self.class
        );
        for WrongShape {
            name,
            found,
            expected,
        } in &self.wrong_shapes
        {
            let _ = write!(
                message,
                "; {name} has shape {found:?} in the file and {expected:?} in the model"
            );
        }
        let head = self
            .wrong_shapes
            .iter()
            .all(|wrong| wrong.name.starts_with("classifier."));
        Err(Failure::data(message)
            .hint(if head {
                "the head was trained for another number of labels: use data with those labels, or remove the \
                 `classifier` tensors from the file so that a new head is made"
            } else {
                "config.json and the weights must belong to the same model"
            })
            .into())
    }
}

fn listed(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("'{name}'")).collect();
    format!("[{}]", quoted.join(", "))
}

/// Copies the weights of a checkpoint into a model in place, by name. As non-strict loading does, missing and unexpected
/// tensors are only said; a wrong shape, or no tensor in common, is an error and leaves the model unchanged.
pub fn apply(model: &dyn Model, tensors: &[(String, Tensor)]) -> Result<()> {
    let own = model.state_dict();
    let report = compare(&own, tensors).fit()?;
    if report.missing.len() == own.len() && !own.is_empty() {
        let message = format!(
            "none of the {} tensors of the model is in the checkpoint",
            own.len()
        );
        return Err(Failure::data(message)
            .hint("the checkpoint belongs to another model")
            .into());
    }
    if !report.missing.is_empty() {
        tracing::warn!(
            "the checkpoint has no {}; they keep their values",
            listed(&report.missing)
        );
    }
    if !report.unexpected.is_empty() {
        tracing::warn!(
            "the model has no {}; the checkpoint's are not used",
            listed(&report.unexpected)
        );
    }
    let given = by_name(tensors);
    for (name, target) in &own {
        if let Some(tensor) = given.get(name.as_str()) {
            tch::no_grad(|| target.shallow_clone().f_copy_(tensor))
                .with_context(|| format!("copying {name}"))?;
        }
    }
    Ok(())
}

fn by_name(tensors: &[(String, Tensor)]) -> HashMap<&str, &Tensor> {
    tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect()
}

fn compare(own: &[(String, Tensor)], tensors: &[(String, Tensor)]) -> LoadReport {
    let (given, known) = (by_name(tensors), by_name(own));
    let unexpected = tensors
        .iter()
        .map(|(name, _)| name)
        .filter(|name| !known.contains_key(name.as_str()));
    let mut report = LoadReport {
        class: "the model".to_owned(),
        source: PathBuf::from("checkpoint"),
        unexpected: unexpected.cloned().collect(),
        ..LoadReport::default()
    };
    for (name, target) in own {
        match given.get(name.as_str()).map(|tensor| tensor.size()) {
            None => report.missing.push(name.clone()),
            Some(found) if found != target.size() => {
                report.wrong_shapes.push(WrongShape {
                    name: name.clone(),
                    found,
                    expected: target.size(),
                });
            }
            Some(_) => {}
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::{apply, compare};
    use crate::data::Batch;
    use crate::model::{Model, Outputs, Parameter};

    struct Two(Vec<Parameter>);

    impl Two {
        fn new() -> Self {
            let parameter = |name: &str| Parameter {
                name: name.to_owned(),
                tensor: Tensor::from_slice(&[1.0_f32, 2.0]).set_requires_grad(true),
                decay: true,
            };
            Self(vec![parameter("a"), parameter("b")])
        }
    }

    impl Model for Two {
        fn parameters(&self) -> &[Parameter] {
            &self.0
        }
        fn state_dict(&self) -> Vec<(String, Tensor)> {
            self.0
                .iter()
                .map(|parameter| (parameter.name.clone(), parameter.tensor.shallow_clone()))
                .collect()
        }
        fn forward_arguments(&self) -> &[String] {
            &[]
        }
        fn label_names(&self) -> Vec<String> {
            Vec::new()
        }
        fn is_library_model(&self) -> bool {
            false
        }
        fn config(&self) -> Option<serde_json::Value> {
            None
        }
        fn set_training(&mut self, _training: bool) -> anyhow::Result<()> {
            Ok(())
        }
        fn forward(&mut self, _batch: &Batch) -> anyhow::Result<Outputs> {
            Ok(Outputs::default())
        }
        fn floating_point_operations(&self, _batch: &Batch) -> f64 {
            0.0
        }
    }

    fn values(model: &Two) -> Vec<f32> {
        model
            .0
            .iter()
            .flat_map(|parameter| Vec::<f32>::try_from(parameter.tensor.detach()).expect("floats"))
            .collect()
    }

    #[test]
    fn weights_are_copied_in_place_and_the_rest_is_reported() {
        let model = Two::new();
        let before = model.0[0].tensor.data_ptr();
        let tensors = [
            ("a".to_owned(), Tensor::from_slice(&[5.0_f64, 6.0])),
            ("c".to_owned(), Tensor::from(1.0)),
        ];
        let report = compare(&model.state_dict(), &tensors);
        assert_eq!(
            (report.missing, report.unexpected),
            (vec!["b".to_owned()], vec!["c".to_owned()])
        );
        apply(&model, &tensors).expect("it fits");
        assert_eq!(values(&model), [5.0, 6.0, 1.0, 2.0]);
        assert_eq!(model.0[0].tensor.data_ptr(), before);
        assert!(model.0[0].tensor.requires_grad());
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let model = Two::new();
        let wrong = [
            ("a".to_owned(), Tensor::from_slice(&[5.0_f32, 6.0])),
            ("b".to_owned(), Tensor::from_slice(&[5.0_f32])),
        ];
        let error = apply(&model, &wrong).expect_err("a wrong shape");
        assert_eq!(
            error.to_string(),
            "checkpoint: the weights do not fit the model; b has shape [1] in the file and [2] in the model"
        );
        let error =
            apply(&model, &[("x".to_owned(), Tensor::from(1.0))]).expect_err("nothing in common");
        assert_eq!(
            error.to_string(),
            "none of the 2 tensors of the model is in the checkpoint"
        );
        assert_eq!(values(&model), [1.0, 2.0, 1.0, 2.0]);
    }
}
