//! AOT packages: networks that `torch.compile`'s inductor has compiled in advance, weights included. They compute no
//! gradients, so they are evaluated and predict, and are not trained.
//!
//! A package is called like a TorchScript module: columns by the names of the keyword arguments that it was exported with,
//! every one of them required; what it may return is in `call.rs`. Its element type was fixed when it was made.
//!
//! The package is code: the caller has checked that the user trusts it.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::call::{self, Signature};
use super::{Model, Outputs, Parameter};
use crate::data::Batch;
use crate::error::Failure;
use crate::torch::{self, ScriptOutput};

const CALL: &str = "export the model with keyword arguments that are tensors (torch.export.export(model, (), {\"input_ids\": ...})), so that \
                    columns are found by their names, and return a tensor, a tuple, or a dictionary of tensors";

/// What to load.
#[derive(Clone, Debug)]
pub struct PackageOptions {
    /// A file that `torch._inductor.aoti_compile_and_package` wrote.
    pub path: PathBuf,
    /// Type of floating point columns.
    pub kind: Kind,
    /// Label columns; `None`: the arguments whose name contains `label`.
    pub label_names: Option<Vec<String>>,
    /// What it will run on, which it must have been compiled for.
    pub device: Device,
}

/// A loaded package.
#[derive(Debug)]
pub struct Package {
    inner: torch::Package,
    signature: Signature,
    outputs: Arrangement,
}

/// How the outputs of a call are arranged.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Arrangement {
    /// A tensor or a tuple of so many.
    Unnamed(usize),
    /// A dictionary with these keys.
    Named(Vec<String>),
}

/// A node of `torch.utils._pytree.treespec_dumps`.
#[derive(Debug, Deserialize)]
struct Node {
    /// `None`: a leaf, which is a tensor.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Of a dictionary its keys, as JSON in a string.
    context: Option<String>,
    children_spec: Vec<Node>,
}

impl Node {
    /// The keys, if all its children are leaves that have keys.
    fn keys(&self) -> Option<Vec<String>> {
        let keys: Vec<String> = serde_json::from_str(self.context.as_deref()?).ok()?;
        (keys.len() == self.children_spec.len() && self.has_leaves_only()).then_some(keys)
    }

    fn has_leaves_only(&self) -> bool {
        self.children_spec.iter().all(|child| child.kind.is_none())
    }
}

/// The tree of a specification, whose first element is the version of its format.
fn tree(spec: &str) -> Option<Node> {
    let (_version, node): (u32, Node) = serde_json::from_str(spec).ok()?;
    Some(node)
}

/// Names of the keyword arguments; `None`: there are others.
fn arguments(spec: &str) -> Option<Vec<String>> {
    let node = tree(spec)?;
    let [positional, named] = &node.children_spec[..] else {
        return None;
    };
    positional
        .children_spec
        .is_empty()
        .then(|| named.keys())
        .flatten()
}

fn arrangement(spec: &str) -> Option<Arrangement> {
    let node = tree(spec)?;
    match node.kind.as_deref() {
        None => Some(Arrangement::Unnamed(1)),
        Some("builtins.tuple" | "builtins.list") if node.has_leaves_only() => {
            Some(Arrangement::Unnamed(node.children_spec.len()))
        }
        Some(_) => node.keys().map(Arrangement::Named),
    }
}

/// Loads a package.
pub fn load(options: &PackageOptions) -> Result<Package> {
    let shown = options.path.display();
    let inner = torch::Package::load(&options.path).map_err(|error| {
        Failure::data(format!("{shown} is not an AOT package: {error:#}")).hint(
            "make it with torch._inductor.aoti_compile_and_package of PyTorch 2.11, on a machine with this processor",
        )
    })?;
    let (made_for, wanted) = (inner.device()?, device_name(options.device));
    if made_for != wanted {
        let message = format!("{shown} was compiled for {made_for}, but this run is on {wanted}");
        return Err(Failure::usage(message)
            .hint("compile it for the device, or use --use_cpu for a package for cpu")
            .into());
    }
    let spec = inner.call_spec()?;
    let readable = match &spec[..] {
        [inputs, outputs] => arguments(inputs).zip(arrangement(outputs)),
        _ => None,
    };
    let Some((arguments, outputs)) = readable else {
        let message = format!("{shown}: its inputs or outputs are arranged in another way");
        return Err(Failure::data(message).hint(CALL).into());
    };
    Ok(Package {
        signature: Signature {
            required: arguments.iter().cloned().collect(),
            labels: call::labels(options.label_names.as_deref(), &arguments),
            arguments,
            kind: options.kind,
        },
        outputs,
        inner,
    })
}

/// As packages say it.
fn device_name(device: Device) -> &'static str {
    if device.is_cuda() { "cuda" } else { "cpu" }
}

impl Arrangement {
    fn arrange(&self, tensors: Vec<Tensor>) -> Result<ScriptOutput> {
        let (count, is_dictionary) = match self {
            Self::Unnamed(count) => (*count, false),
            Self::Named(keys) => (keys.len(), true),
        };
        if tensors.len() != count {
            bail!(
                "the package returned {} tensors, not the {count} of its description",
                tensors.len()
            );
        }
        let name = |index: usize| match self {
            Self::Unnamed(_) => String::new(),
            Self::Named(keys) => keys[index].clone(),
        };
        let fields = tensors.into_iter().enumerate();
        Ok(ScriptOutput {
            fields: fields
                .map(|(index, tensor)| (name(index), tensor))
                .collect(),
            is_dictionary,
        })
    }
}

impl Model for Package {
    fn parameters(&self) -> &[Parameter] {
        &[]
    }

    fn state_dict(&self) -> Vec<(String, Tensor)> {
        Vec::new()
    }

    fn forward_arguments(&self) -> &[String] {
        &self.signature.arguments
    }

    fn main_input(&self) -> &str {
        self.signature.main_input()
    }

    fn label_names(&self) -> Vec<String> {
        self.signature.labels.clone()
    }

    fn is_library_model(&self) -> bool {
        false
    }

    fn config(&self) -> Option<serde_json::Value> {
        None
    }

    fn set_training(&mut self, training: bool) -> Result<()> {
        if training {
            let message = "an AOT package computes no gradients, so it cannot be trained";
            return Err(Failure::usage(message)
                .hint("train the model that it was made of")
                .into());
        }
        Ok(())
    }

    fn set_kind(&mut self, kind: Kind) -> Result<()> {
        let message = format!(
            "an AOT package cannot be cast to {kind:?}: its type was fixed when it was made"
        );
        Err(Failure::usage(message).hint("leave the cast out").into())
    }

    fn compile_for_evaluation(&mut self) -> Result<()> {
        bail!("an AOT package is compiled already")
    }

    fn forward(&mut self, batch: &Batch) -> Result<Outputs> {
        let (names, tensors) = self.signature.columns_of(batch)?;
        let has_labels = self.signature.has_labels(&names);
        let outputs = self.inner.run(&tensors).map_err(|error| {
            let given = names.iter().zip(&tensors);
            let given: Vec<String> = given
                .map(|(name, tensor)| format!("{name} {:?} {:?}", tensor.kind(), tensor.size()))
                .collect();
            Failure::data(format!("the AOT package failed: {error:#}; it was given {}", given.join(", "))).hint(
                "types and sizes must be those that it was exported with: mark dimensions that vary with dynamic_shapes",
            )
        })?;
        call::outputs_of(self.outputs.arrange(outputs)?, has_labels)
    }

    fn floating_point_operations(&self, _batch: &Batch) -> f64 {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf() -> String {
        r#"{"type": null, "context": null, "children_spec": []}"#.to_owned()
    }

    fn node(kind: &str, context: &str, children: &[String]) -> String {
        let (context, children) = (serde_json::json!(context), children.join(", "));
        format!(r#"{{"type": "{kind}", "context": {context}, "children_spec": [{children}]}}"#)
    }

    fn call(positional: &[String], named: &str) -> String {
        let positional = node("builtins.tuple", "null", positional);
        let call = node("builtins.tuple", "null", &[positional, named.to_owned()]);
        format!("[1, {call}]")
    }

    #[test]
    fn only_keyword_arguments_have_names() {
        let keys = r#"["x", "labels"]"#;
        let named = node("builtins.dict", keys, &[leaf(), leaf()]);
        let names = vec!["x".to_owned(), "labels".to_owned()];
        assert_eq!(arguments(&call(&[], &named)), Some(names));
        assert_eq!(arguments(&call(&[leaf()], &named)), None);
        let nested = node("builtins.dict", keys, &[leaf(), named]);
        assert_eq!(arguments(&call(&[], &nested)), None);
        assert_eq!(arguments("[1]"), None);
    }

    #[test]
    fn outputs_are_named_or_counted() {
        let of = |node: &str| arrangement(&format!("[1, {node}]"));
        assert_eq!(of(&leaf()), Some(Arrangement::Unnamed(1)));
        let pair = node("builtins.tuple", "null", &[leaf(), leaf()]);
        assert_eq!(of(&pair), Some(Arrangement::Unnamed(2)));
        let output = "transformers.modeling_outputs.SequenceClassifierOutput";
        let output = node(output, r#"["loss", "logits"]"#, &[leaf(), leaf()]);
        let names = vec!["loss".to_owned(), "logits".to_owned()];
        assert_eq!(of(&output), Some(Arrangement::Named(names)));
        assert_eq!(of(&node("builtins.tuple", "null", &[pair])), None);
    }
}
