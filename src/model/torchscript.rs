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

const CALL: &str = "forward gets the columns of a batch as tensors, by the names of its arguments, and returns a tensor, a tuple, or a \
                    dictionary of tensors";

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
    /// The module with its present weights as constants.
    frozen: Option<ScriptModule>,
    kind: Kind,
    parameters: Vec<Parameter>,
    buffers: Vec<(String, Tensor)>,
    arguments: Vec<String>,
    required: HashSet<String>,
    labels: Vec<String>,
}

/// Loads a module.
pub fn load(options: &ScriptOptions) -> Result<Script> {
    let ScriptOptions {
        path,
        kind,
        label_names,
    } = options;
    let mut module = ScriptModule::load(path).map_err(|error| {
        Failure::data(format!(
            "{} is not a TorchScript module: {error:#}",
            path.display()
        ))
        .hint("save it with torch.jit.save(torch.jit.script(module), FILE) or torch.jit.trace")
    })?;
    module
        .set_dtype(*kind)
        .with_context(|| format!("converting the parameters to {kind:?}"))?;
    let norms = module.layer_norms()?;
    let parameters = module
        .parameters()?
        .into_iter()
        .map(|(name, tensor)| Parameter {
            decay: !name.contains("bias") && !is_inside(&name, &norms),
            name,
            tensor,
        });
    let parameters: Vec<_> = parameters.collect();
    let arguments = module.arguments().map_err(|error| {
        Failure::data(format!("{}: {error:#}", path.display())).hint(
            "the module needs a method `forward`; its arguments name the columns it is called with",
        )
    })?;
    let labels = label_names.clone().unwrap_or_else(|| {
        arguments
            .iter()
            .filter(|name| name.contains("label"))
            .cloned()
            .collect()
    });
    Ok(Script {
        required: module.required_arguments()?.into_iter().collect(),
        buffers: module.buffers()?,
        kind: *kind,
        parameters,
        arguments,
        labels,
        module,
        frozen: None,
    })
}

/// Whether a parameter belongs to one of the modules, directly or deeper.
fn is_inside(parameter: &str, modules: &[String]) -> bool {
    modules.iter().any(|module| {
        module.is_empty()
            || parameter
                .strip_prefix(module.as_str())
                .is_some_and(|rest| rest.starts_with('.'))
    })
}

impl Script {
    /// The columns that `forward` takes, in its order.
    fn call_arguments(&self, batch: &Batch) -> Result<(Vec<String>, Vec<Tensor>)> {
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

/// Names the outputs and finds the loss.
fn outputs_of(output: ScriptOutput, has_labels: bool) -> Result<Outputs> {
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

impl Model for Script {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn state_dict(&self) -> Vec<(String, Tensor)> {
        let parameters = self
            .parameters
            .iter()
            .map(|parameter| (&parameter.name, &parameter.tensor));
        let buffers = self.buffers.iter().map(|(name, tensor)| (name, tensor));
        parameters
            .chain(buffers)
            .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .collect()
    }

    fn forward_arguments(&self) -> &[String] {
        &self.arguments
    }

    fn main_input(&self) -> &str {
        let inputs = || {
            self.arguments
                .iter()
                .filter(|name| !self.labels.contains(name))
        };
        inputs()
            .find(|name| *name == "input_ids")
            .or_else(|| inputs().next())
            .map_or("input_ids", String::as_str)
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
        self.frozen = None;
        self.module.set_training(training)
    }

    fn set_kind(&mut self, kind: Kind) -> Result<()> {
        self.kind = kind;
        self.frozen = None;
        self.module.set_dtype(kind)
    }

    fn compile_for_evaluation(&mut self) -> Result<()> {
        self.frozen = Some(self.module.freeze()?);
        Ok(())
    }

    fn forget_compiled(&mut self) {
        self.frozen = None;
    }

    fn forward(&mut self, batch: &Batch) -> Result<Outputs> {
        let (names, tensors) = self.call_arguments(batch)?;
        let has_labels = names.iter().any(|name| self.labels.contains(name));
        let module = self.frozen.as_mut().unwrap_or(&mut self.module);
        let output = module.forward(&names, &tensors).map_err(|error| {
            Failure::data(format!("the TorchScript module failed: {error:#}")).hint(CALL)
        })?;
        outputs_of(output, has_labels)
    }

    fn floating_point_operations(&self, _batch: &Batch) -> f64 {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tch::{Kind, Tensor};

    use super::{Script, ScriptOptions, load};
    use crate::data::Batch;
    use crate::model::Model;

    fn script(name: &str, kind: Kind) -> Script {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/torchscript")
            .join(name);
        load(&ScriptOptions {
            path,
            kind,
            label_names: None,
        })
        .expect("a module")
    }

    fn batch(columns: &[(&str, Tensor)]) -> Batch {
        Batch {
            columns: columns
                .iter()
                .map(|(name, tensor)| ((*name).into(), tensor.shallow_clone()))
                .collect(),
        }
    }

    fn names(outputs: &crate::model::Outputs) -> Vec<&str> {
        outputs
            .fields
            .iter()
            .map(|(name, _)| name.as_str())
            .collect()
    }

    #[test]
    fn tuples_and_dictionaries_come_back_with_and_without_labels() {
        let x = ("input_x", Tensor::from_slice(&[1.0_f32, 2.0]));
        let labels = ("labels", Tensor::from_slice(&[3.0_f32, 5.0]));
        for (file, output) in [("regression.pt", "logits"), ("regression_dict.pt", "y")] {
            let mut module = script(file, Kind::Float);
            assert_eq!(module.forward_arguments(), ["input_x", "labels"]);
            assert_eq!(module.label_names(), ["labels"]);
            assert_eq!(module.main_input(), "input_x");
            let outputs = module
                .forward(&batch(&[x.shared(), labels.shared()]))
                .expect("a pass");
            assert_eq!(
                outputs.loss.as_ref().expect("a loss").double_value(&[]),
                17.0,
                "{file}"
            );
            assert_eq!(names(&outputs), [output]);
            outputs.loss.expect("a loss").backward();
            assert_eq!(
                module.parameters()[1].tensor.grad().double_value(&[]),
                -8.0,
                "gradients reach the module's own tensors"
            );
            let outputs = module.forward(&batch(&[x.shared()])).expect("a pass");
            assert!(outputs.loss.is_none());
            assert_eq!(names(&outputs), [output]);
        }
    }

    #[test]
    fn state_decay_and_optional_arguments() {
        let mut module = script("layers.pt", Kind::Double);
        let decay: Vec<_> = module
            .parameters()
            .iter()
            .map(|parameter| (parameter.name.as_str(), parameter.decay))
            .collect();
        let expected = [
            ("scale", true),
            ("block.dense.weight", true),
            ("block.dense.bias", false),
            ("block.norm.weight", false),
            ("block.norm.bias", false),
            ("batch.weight", true),
            ("batch.bias", false),
        ];
        assert_eq!(decay, expected);
        let kinds: Vec<_> = module
            .state_dict()
            .iter()
            .skip(7)
            .map(|(name, tensor)| (name.clone(), tensor.kind()))
            .collect();
        let buffers = [
            ("batch.running_mean", Kind::Double),
            ("batch.running_var", Kind::Double),
            ("batch.num_batches_tracked", Kind::Int64),
        ];
        assert_eq!(kinds, buffers.map(|(name, kind)| (name.to_owned(), kind)));
        assert!(
            module
                .parameters()
                .iter()
                .all(|parameter| parameter.tensor.kind() == Kind::Double)
        );

        let x = Tensor::from_slice(&[1.0_f32, -1.0, 0.5, 2.0]).view([2, 2]);
        let labels = Tensor::from_slice(&[0_i64, 2]);
        module.set_training(true).expect("a mode");
        let outputs = module
            .forward(&batch(&[("my_labels", labels), ("x", x.shallow_clone())]))
            .expect("a pass");
        assert_eq!(
            (names(&outputs), outputs.loss.is_some()),
            (vec!["logits", "output_1"], true)
        );
        let counted = |module: &Script| {
            module
                .buffers
                .iter()
                .find(|(name, _)| name.ends_with("tracked"))
                .expect("a counter")
                .1
                .int64_value(&[])
        };
        assert_eq!(counted(&module), 1, "in training mode statistics are kept");
        module.set_training(false).expect("a mode");
        let shift = Tensor::from_slice(&[10.0_f32]);
        let shifted = module
            .forward(&batch(&[("x", x.shallow_clone()), ("shift", shift)]))
            .expect("a pass");
        let plain = module.forward(&batch(&[("x", x)])).expect("a pass");
        assert!(
            (&shifted.fields[0].1 - &plain.fields[0].1 - 10.0)
                .abs()
                .max()
                .double_value(&[])
                < 1e-12
        );
        assert_eq!(counted(&module), 1);
    }

    #[test]
    fn a_missing_argument_is_named() {
        let mut module = script("layers.pt", Kind::Float);
        let error = module
            .forward(&batch(&[("y", Tensor::from(1.0))]))
            .expect_err("x is missing");
        assert_eq!(
            error.to_string(),
            "forward(x, shift, my_labels) needs x, but the batch has only y"
        );
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let error = load(&ScriptOptions {
            path,
            kind: Kind::Float,
            label_names: None,
        })
        .expect_err("no module");
        assert!(
            error
                .to_string()
                .contains("Cargo.toml is not a TorchScript module"),
            "{error}"
        );
    }

    trait Shared {
        fn shared(&self) -> Self;
    }

    impl Shared for (&str, Tensor) {
        fn shared(&self) -> Self {
            (self.0, self.1.shallow_clone())
        }
    }
}
