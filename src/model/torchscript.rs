//! TorchScript modules: how any `torch.nn.Module` comes in. `forward` is called with the batch's columns by the names of
//! its arguments.
//!
//! What it may return: a dictionary of tensors, with the loss as `loss`; a tuple; or one tensor. If the call was given
//! labels, the first element of a tuple (or the single tensor) **is taken for the loss**, a scalar, as the reference
//! takes item 0; without labels everything is output. The first output of a tuple is called `logits`, the following
//! `output_1`, `output_2`, ...
//!
//! The module is code: the caller has checked that the user trusts it.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tch::{Kind, Tensor};

use super::{Model, Outputs, Parameter};
use crate::data::Batch;
use crate::error::Failure;
use crate::torch::{ScriptModule, ScriptOutput};

/// What to load.
#[derive(Clone, Debug)]
pub struct ScriptOptions {
    /// A file that `torch.jit.save` wrote.
    pub path: PathBuf,
    /// Type to which floating point parameters, buffers and columns are converted.
    pub kind: Kind,
    /// Label columns; `None`: the arguments of `forward` whose name contains `label`.
    pub label_names: Option<Vec<String>>,
}

/// A loaded module.
#[derive(Debug)]
pub struct Script {
    module: ScriptModule,
    kind: Kind,
    parameters: Vec<Parameter>,
    buffers: Vec<(String, Tensor)>,
    arguments: Vec<String>,
    required: HashSet<String>,
    labels: Vec<String>,
}

/// Loads a module.
pub fn load(options: &ScriptOptions) -> Result<Script> {
    let ScriptOptions { path, kind, label_names } = options;
    let mut module = ScriptModule::load(path).map_err(|error| {
        Failure::data(format!("{} is not a TorchScript module: {error:#}", path.display()))
            .hint("save it with torch.jit.save(torch.jit.script(module), FILE) or torch.jit.trace")
    })?;
    module.set_dtype(*kind).with_context(|| format!("converting the parameters to {kind:?}"))?;
    let norms = module.layer_norms()?;
    let parameters = module.parameters()?.into_iter().map(|(name, tensor)| Parameter {
        decay: !name.contains("bias") && !is_inside(&name, &norms),
        name,
        tensor,
    });
    let parameters: Vec<_> = parameters.collect();
    let arguments = module.arguments()?;
    let labels = label_names.clone().unwrap_or_else(|| {
        arguments.iter().filter(|name| name.contains("label")).cloned().collect()
    });
    Ok(Script {
        required: module.required_arguments()?.into_iter().collect(),
        buffers: module.buffers()?,
        kind: *kind,
        parameters,
        arguments,
        labels,
        module,
    })
}

/// Whether a parameter belongs to one of the modules, directly or deeper.
fn is_inside(parameter: &str, modules: &[String]) -> bool {
    modules.iter().any(|module| {
        module.is_empty() || parameter.strip_prefix(module.as_str()).is_some_and(|rest| rest.starts_with('.'))
    })
}

impl Script {
    /// The columns that `forward` takes, in its order.
    fn call_arguments(&self, batch: &Batch) -> Result<(Vec<String>, Vec<Tensor>)> {
        let (mut names, mut tensors) = (Vec::new(), Vec::new());
        for name in &self.arguments {
            match batch.get(name) {
                Some(tensor) if tensor.is_floating_point() => tensors.push(tensor.f_to_kind(self.kind)?),
                Some(tensor) => tensors.push(tensor.shallow_clone()),
                None if self.required.contains(name) => return Err(self.missing(name, batch)),
                None => continue,
            }
            names.push(name.clone());
        }
        Ok((names, tensors))
    }

    fn missing(&self, name: &str, batch: &Batch) -> anyhow::Error {
        let columns: Vec<_> = batch.columns.iter().map(|(column, _)| &**column).collect();
        let message = format!(
            "forward({}) needs {name}, but the batch has only {}",
            self.arguments.join(", "),
            columns.join(", ")
        );
        Failure::data(message).hint("columns are passed by name: rename the column or the argument").into()
    }
}

/// Names the outputs and finds the loss.
fn outputs_of(output: ScriptOutput, has_labels: bool) -> Result<Outputs> {
    let mut fields = output.fields;
    if output.is_dictionary {
        let loss = fields.iter().position(|(name, _)| name == "loss").map(|index| fields.remove(index).1);
        return Ok(Outputs { loss: loss.map(scalar).transpose()?, fields });
    }
    let loss = if has_labels && !fields.is_empty() { Some(scalar(fields.remove(0).1)?) } else { None };
    for (index, (name, _)) in fields.iter_mut().enumerate() {
        *name = if index == 0 { "logits".to_owned() } else { format!("output_{index}") };
    }
    Ok(Outputs { loss, fields })
}

fn scalar(loss: Tensor) -> Result<Tensor> {
    if loss.numel() == 1 {
        return Ok(loss.f_reshape([] as [i64; 0])?);
    }
    let message = format!("forward was given labels, so its first output is the loss; it has shape {:?}, not one number", loss.size());
    Err(Failure::data(message).hint("return (loss, outputs...) or a dictionary with `loss`").into())
}

impl Model for Script {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn state_dict(&self) -> Vec<(String, Tensor)> {
        let parameters = self.parameters.iter().map(|parameter| (&parameter.name, &parameter.tensor));
        let buffers = self.buffers.iter().map(|(name, tensor)| (name, tensor));
        parameters.chain(buffers).map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    fn forward_arguments(&self) -> &[String] {
        &self.arguments
    }

    fn main_input(&self) -> &str {
        let inputs = || self.arguments.iter().filter(|name| !self.labels.contains(name));
        inputs().find(|name| *name == "input_ids").or_else(|| inputs().next()).map_or("input_ids", String::as_str)
    }

    fn label_names(&self) -> Vec<String> {
        self.labels.clone()
    }

    fn is_library_model(&self) -> bool {
        false
    }

    fn config(&self) -> Option<serde_json::Value> {
        None
    }

    fn set_training(&mut self, training: bool) -> Result<()> {
        self.module.set_training(training)
    }

    fn forward(&mut self, batch: &Batch) -> Result<Outputs> {
        let (names, tensors) = self.call_arguments(batch)?;
        let has_labels = names.iter().any(|name| self.labels.contains(name));
        let output = self.module.forward(&names, &tensors).context("calling the TorchScript module")?;
        outputs_of(output, has_labels)
    }

    fn floating_point_operations(&self, _batch: &Batch) -> f64 {
        0.0
    }
}
