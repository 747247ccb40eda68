//! Foreign models are called by name: columns of a batch become arguments, what comes back becomes named outputs. Shared by
//! TorchScript modules and AOT packages.

use std::collections::HashSet;

use anyhow::Result;
use tch::{Kind, Tensor};

use super::Outputs;
use crate::data::Batch;
use crate::error::Failure;
use crate::torch::ScriptOutput;

/// What a foreign model is called with.
#[derive(Debug)]
pub(super) struct Signature {
    /// Arguments in order.
    pub arguments: Vec<String>,
    /// Those that must be given.
    pub required: HashSet<String>,
    /// Those that are labels.
    pub labels: Vec<String>,
    /// Type of floating point columns.
    pub kind: Kind,
}

/// The columns that are labels: those that were named, else the arguments whose name contains `label`.
pub(super) fn labels(named: Option<&[String]>, arguments: &[String]) -> Vec<String> {
    let by_name = || arguments.iter().filter(|name| name.contains("label"));
    named.map_or_else(|| by_name().cloned().collect(), <[String]>::to_vec)
}

impl Signature {
    /// The columns of a batch that are arguments, in the order of the arguments.
    pub fn columns_of(&self, batch: &Batch) -> Result<(Vec<String>, Vec<Tensor>)> {
        let (mut names, mut tensors) = (Vec::new(), Vec::new());
        for name in &self.arguments {
            match batch.get(name) {
                Some(tensor) if tensor.is_floating_point() => {
                    tensors.push(tensor.f_to_kind(self.kind)?)
                }
                Some(tensor) => tensors.push(tensor.shallow_clone()),
                None if self.required.contains(name) => return Err(self.missing(name, batch)),
                None => continue,
            }
            names.push(name.clone());
        }
        Ok((names, tensors))
    }

    /// Whether one of these arguments is a label.
    pub fn has_labels(&self, names: &[String]) -> bool {
        names.iter().any(|name| self.labels.contains(name))
    }

    /// `input_ids`, or else the first argument that is no label.
    pub fn main_input(&self) -> &str {
        let inputs = || {
            let arguments = self.arguments.iter();
            arguments.filter(|name| !self.labels.contains(name))
        };
        inputs()
            .find(|name| *name == "input_ids")
            .or_else(|| inputs().next())
            .map_or("input_ids", String::as_str)
    }

    fn missing(&self, name: &str, batch: &Batch) -> anyhow::Error {
        let columns: Vec<_> = batch.columns.iter().map(|(column, _)| &**column).collect();
        let message = format!(
            "forward({}) needs {name}, but the batch has only {}",
            self.arguments.join(", "),
            columns.join(", ")
        );
        Failure::data(message)
            .hint("columns are passed by name: rename the column or the argument")
            .into()
    }
}

/// Names the outputs and finds the loss: the entry `loss` of a dictionary; of anything else the first output, a scalar, if
/// labels were given. The first output of a tuple is called `logits`, the following `output_1`, `output_2`, ...
pub(super) fn outputs_of(output: ScriptOutput, has_labels: bool) -> Result<Outputs> {
    let mut fields = output.fields;
    if output.is_dictionary {
        let loss = fields
            .iter()
            .position(|(name, _)| name == "loss")
            .map(|index| fields.remove(index).1);
        return Ok(Outputs {
            loss: loss.map(scalar).transpose()?,
            fields,
        });
    }
    let loss = if has_labels && !fields.is_empty() {
        Some(scalar(fields.remove(0).1)?)
    } else {
        None
    };
    for (index, (name, _)) in fields.iter_mut().enumerate() {
        *name = if index == 0 {
            "logits".to_owned()
        } else {
            format!("output_{index}")
        };
    }
    Ok(Outputs { loss, fields })
}

fn scalar(loss: Tensor) -> Result<Tensor> {
    if loss.is_complex() {
        let message = format!(
            "the loss of the module is {:?}; expected a real number",
            loss.kind()
        );
        return Err(Failure::data(message).into());
    }
    if loss.numel() == 1 {
        return Ok(loss.f_reshape([] as [i64; 0])?);
    }
    let message = format!(
        "forward was given labels, so its first output is the loss; it has shape {:?}, not one number",
        loss.size()
    );
    Err(Failure::data(message)
        .hint("return (loss, outputs...) or a dictionary with `loss`")
        .into())
}
