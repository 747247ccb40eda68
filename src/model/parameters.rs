//! Makes the parameters of a native architecture, in state-dict order: taken over from the weights that were read, or
//! initialised and drawn as Hugging Face does.
//!
//! An architecture asks for its layers in the order in which PyTorch registers them. That order is also the order in
//! which missing modules are initialised, so the default generator is consumed alike. (4.34 also consumes it for the
//! constructors of `torch.nn`, whose results it throws away; later releases and this program do not.)

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::Parameter;
use super::layers::{Embedding, LayerNorm, Linear};
use super::weights::{LoadReport, WrongShape};
use crate::error::{Failure, told};

/// What an architecture must say about its weights.
#[derive(Clone, Copy, Debug)]
pub struct Naming {
    /// Class name, for messages.
    pub class: &'static str,
    /// Prefix of the base model (`bert`): a file of the bare base model lacks it.
    pub prefix: &'static str,
    /// Buffers that old releases saved and that are not loaded.
    pub buffers: &'static [&'static str],
    /// Second names of parameters that some files repeat; nothing is loaded from them.
    pub tied: &'static [&'static str],
}

/// How parameters are made.
#[derive(Clone, Copy, Debug)]
pub struct Initialization {
    /// Element type.
    pub kind: Kind,
    /// Standard deviation of drawn weights.
    pub range: f64,
}

/// The weights of a file on their way into a model.
#[derive(Debug)]
pub struct ParameterSource {
    naming: Naming,
    initialization: Initialization,
    loaded: HashMap<String, Tensor>,
    /// Names in the file, in its order, with the name in the model.
    names: Vec<(String, String)>,
    prefixed: bool,
    storages: HashSet<usize>,
    parameters: Vec<Parameter>,
    embedding_elements: usize,
    report: LoadReport,
}

/// What has been made.
#[derive(Debug)]
pub struct Made {
    /// Parameters in state-dict order.
    pub parameters: Vec<Parameter>,
    /// Number of their elements outside embeddings, for FLOPs.
    pub non_embedding_elements: usize,
    /// What did not fit.
    pub report: LoadReport,
}

impl ParameterSource {
    /// Takes over the tensors of a file.
    pub fn new(
        tensors: Vec<(String, Tensor)>,
        source: PathBuf,
        (naming, initialization): (Naming, Initialization),
    ) -> Self {
        // As `has_prefix_module`: one name with the prefix is enough.
        let prefixed = tensors
            .iter()
            .any(|(name, _)| modern(name).starts_with(naming.prefix));
        let mut loaded = HashMap::with_capacity(tensors.len());
        let mut names = Vec::with_capacity(tensors.len());
        for (name, tensor) in tensors {
            let plain = modern(&name);
            let own = if prefixed {
                plain
            } else {
                format!("{}.{plain}", naming.prefix)
            };
            loaded.insert(own.clone(), tensor);
            names.push((name, own));
        }
        let report = LoadReport {
            class: naming.class.to_owned(),
            source,
            ..LoadReport::default()
        };
        Self {
            naming,
            initialization,
            loaded,
            names,
            prefixed,
            storages: HashSet::new(),
            parameters: Vec::new(),
            embedding_elements: 0,
            report,
        }
    }

    /// `torch.nn.Linear` called `name`.
    pub fn linear(&mut self, name: &str, outputs: i64, inputs: i64) -> Result<Linear> {
        let Initialization { kind, range } = self.initialization;
        let names = [format!("{name}.weight"), format!("{name}.bias")];
        let complete = self.has_all(&names);
        let fresh_weight = || normal(&[outputs, inputs], kind, range);
        // A module that is loaded only in part is initialised as a whole before: the draw happens.
        let drawn = if complete {
            None
        } else {
            let weight = fresh_weight();
            Some(weight.map_err(|error| self.impossible(&names[0], &[outputs, inputs], &error))?)
        };
        let weight = self.parameter(&names[0], &[outputs, inputs], true, || {
            drawn.map_or_else(fresh_weight, Ok)
        })?;
        let bias = self.parameter(&names[1], &[outputs], false, || {
            Ok(Tensor::f_zeros([outputs], (kind, Device::Cpu))?)
        })?;
        Ok(Linear { weight, bias })
    }

    /// A bias that belongs to no layer.
    pub fn bias(&mut self, name: &str, size: i64) -> Result<Tensor> {
        let options = (self.initialization.kind, Device::Cpu);
        self.parameter(name, &[size], false, || {
            Ok(Tensor::f_zeros([size], options)?)
        })
    }

    /// `torch.nn.Embedding` called `name`; `subject` names its ids in errors.
    pub fn embedding(
        &mut self,
        (name, subject): (&str, &'static str),
        shape: [i64; 2],
        padding: Option<i64>,
    ) -> Result<Embedding> {
        let Initialization { kind, range } = self.initialization;
        let weight = self.parameter(&format!("{name}.weight"), &shape, true, || {
            let weight = normal(&shape, kind, range)?;
            if let Some(row) = padding {
                let _ = weight.f_get(row)?.f_zero_()?;
            }
            Ok(weight)
        })?;
        self.embedding_elements += weight.numel();
        Ok(Embedding {
            weight,
            padding,
            subject,
        })
    }

    /// `torch.nn.LayerNorm` called `name`.
    pub fn layer_norm(&mut self, name: &str, size: i64, epsilon: f64) -> Result<LayerNorm> {
        let options = (self.initialization.kind, Device::Cpu);
        let weight = self.parameter(&format!("{name}.weight"), &[size], false, || {
            Ok(Tensor::f_ones([size], options)?)
        })?;
        let bias = self.parameter(&format!("{name}.bias"), &[size], false, || {
            Ok(Tensor::f_zeros([size], options)?)
        })?;
        Ok(LayerNorm {
            weight,
            bias,
            epsilon,
        })
    }

    fn has_all(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.loaded.contains_key(name))
    }

    /// One parameter: the loaded tensor if there is one and it fits, else what `fresh` makes.
    fn parameter(
        &mut self,
        name: &str,
        shape: &[i64],
        decay: bool,
        fresh: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        let taken = match self.loaded.remove(name) {
            None => {
                self.report.missing.push(name.to_owned());
                None
            }
            Some(tensor) if tensor.size() != shape => {
                let (name, found, expected) = (name.to_owned(), tensor.size(), shape.to_vec());
                self.report.wrong_shapes.push(WrongShape {
                    name,
                    found,
                    expected,
                });
                // Nothing is made of it: `finish` refuses, and the shape may be one that no memory can hold.
                Some(Tensor::f_zeros(
                    [0],
                    (self.initialization.kind, Device::Cpu),
                )?)
            }
            Some(tensor) => Some(self.adopt(name, &tensor)?),
        };
        let tensor = match taken {
            Some(tensor) => tensor,
            None => fresh().map_err(|error| self.impossible(name, shape, &error))?,
        };
        let tensor = tensor.f_set_requires_grad(true)?;
        self.parameters.push(Parameter {
            name: name.to_owned(),
            tensor: tensor.shallow_clone(),
            decay,
        });
        Ok(tensor)
    }

    /// A shape that libtorch refuses, mostly because there is not so much memory.
    fn impossible(&self, name: &str, shape: &[i64], error: &anyhow::Error) -> Failure {
        let source = self.report.source.display();
        let why = told(error);
        Failure::data(format!(
            "{source} has no {name}, and it cannot be initialized with shape {shape:?}: {why}"
        ))
        .hint("config.json and the weights must belong to the same model")
    }

    /// The tensor in our type; without a copy if it has it already and nobody else does.
    fn adopt(&mut self, name: &str, tensor: &Tensor) -> Result<Tensor> {
        if !tensor.is_floating_point() {
            let message = format!(
                "{}: {name} holds {:?}; expected floating point",
                self.report.source.display(),
                tensor.kind()
            );
            return Err(Failure::data(message)
                .hint("quantized weights cannot be trained")
                .into());
        }
        let kind = self.initialization.kind;
        let tensor = tensor.f_detach()?.f_to_kind(kind)?.f_contiguous()?;
        // Two names for one storage would be trained twice.
        if self.storages.insert(tensor.data_ptr() as usize) {
            Ok(tensor)
        } else {
            Ok(tensor.f_to_dtype(kind, false, true)?)
        }
    }

    /// Checks what is left and hands the parameters over. Wrong shapes are an error.
    pub fn finish(mut self) -> Result<Made> {
        let left = |own: &str| self.loaded.contains_key(own);
        let Naming { buffers, tied, .. } = self.naming;
        let is_buffer = |own: &str| buffers.contains(&own) || tied.contains(&own);
        self.report.unexpected = self
            .names
            .iter()
            .filter(|(_, own)| left(own) && !is_buffer(own))
            .map(|(name, _)| name.clone())
            .collect();
        if !self.prefixed {
            let corrupt = self
                .report
                .unexpected
                .iter()
                .find(|name| self.parameters.iter().any(|own| own.name == **name));
            if let Some(name) = corrupt {
                let source = self.report.source.display();
                let message = format!(
                    "{source}: tensor {name} belongs to the head, but the names of the encoder lack `{}.`",
                    self.naming.prefix
                );
                return Err(Failure::data(message)
                    .hint("the weights were not saved properly")
                    .into());
            }
        }
        if self.report.missing.len() == self.parameters.len() && !self.parameters.is_empty() {
            let (source, class) = (self.report.source.display(), &self.report.class);
            let message = format!(
                "{source}: none of the {} tensors of {class} is there; the file has {} others",
                self.parameters.len(),
                self.names.len()
            );
            return Err(Failure::data(message)
                .hint("config.json and the weights must belong to the same model")
                .into());
        }
        let elements: usize = self
            .parameters
            .iter()
            .map(|parameter| parameter.tensor.numel())
            .sum();
        Ok(Made {
            non_embedding_elements: elements - self.embedding_elements,
            parameters: self.parameters,
            report: self.report.fit()?,
        })
    }
}

/// The name without the spelling of TensorFlow checkpoints.
fn modern(name: &str) -> String {
    if name.contains("beta") {
        name.replace("beta", "bias")
    } else {
        name.replace("gamma", "weight")
    }
}

fn normal(shape: &[i64], kind: Kind, range: f64) -> Result<Tensor> {
    Ok(Tensor::f_empty(shape, (kind, Device::Cpu))?.f_normal_(0.0, range)?)
}
