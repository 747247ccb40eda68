//! Makes the parameters of a native architecture, in state-dict order: taken over from the weights that were read, or
//! initialised and drawn as Hugging Face does.
//!
//! An architecture asks for its layers in the order in which PyTorch registers them. That order is also the order in
//! which missing modules are initialised, so the default generator is consumed alike: first for the constructors of
//! `torch.nn`, whose results the reference throws away, then for what is missing. Where nothing is loaded, the encoder is
//! drawn before the head is constructed, because its class initialises itself.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};

use super::Parameter;
use super::layers::{Embedding, LayerNorm, Linear};
use super::weights::{LoadReport, WrongShape};
use crate::error::{Failure, told};
use crate::torch;

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
    /// Everything is drawn, because there are no weights to load.
    pub is_new: bool,
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
    /// Elements that the constructors of the modules so far draw, module by module.
    constructors: Vec<(Part, Drawn)>,
    /// Weights that are drawn when all modules have been made.
    undrawn: Vec<Undrawn>,
}

/// Whether a module belongs to the encoder or to the head on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Encoder,
    Head,
}

/// What a constructor draws.
#[derive(Clone, Copy, Debug)]
enum Drawn {
    Uniform(u64),
    Normal(u64),
}

/// A weight to be drawn.
#[derive(Debug)]
struct Undrawn {
    part: Part,
    weight: Tensor,
    /// Row that is zero afterwards.
    padding: Option<i64>,
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
            constructors: Vec::new(),
            undrawn: Vec::new(),
        }
    }

    /// `torch.nn.Linear` called `name`.
    pub fn linear(&mut self, name: &str, outputs: i64, inputs: i64) -> Result<Linear> {
        let kind = self.initialization.kind;
        let names = [format!("{name}.weight"), format!("{name}.bias")];
        let part = self.part_of(name);
        self.constructors.extend([
            (part, Drawn::Uniform(elements(&[outputs, inputs]))),
            (part, Drawn::Uniform(elements(&[outputs]))),
        ]);
        // A module that is loaded only in part is initialised as a whole before: the draw happens.
        let undrawn = if self.has_all(&names) {
            None
        } else {
            let weight = Tensor::f_empty([outputs, inputs], (kind, Device::Cpu));
            let weight = weight
                .map_err(|error| self.impossible(&names[0], &[outputs, inputs], &error.into()))?;
            self.undrawn.push(Undrawn {
                part,
                weight: weight.shallow_clone(),
                padding: None,
            });
            Some(weight)
        };
        let weight = self.parameter(&names[0], &[outputs, inputs], true, || {
            undrawn.context("a module that is not whole is drawn")
        })?;
        let bias = self.parameter(&names[1], &[outputs], false, || {
            Ok(Tensor::f_zeros([outputs], (kind, Device::Cpu))?)
        })?;
        let name = name.to_owned();
        Ok(Linear { name, weight, bias })
    }

    /// A `torch.nn.Linear` without bias whose weight is replaced by that of another module: only its constructor draws.
    pub fn tied_linear(&mut self, name: &str, outputs: i64, inputs: i64) {
        let drawn = Drawn::Uniform(elements(&[outputs, inputs]));
        self.constructors.push((self.part_of(name), drawn));
    }

    fn part_of(&self, name: &str) -> Part {
        match name.starts_with(self.naming.prefix) {
            true => Part::Encoder,
            false => Part::Head,
        }
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
        let kind = self.initialization.kind;
        let part = self.part_of(name);
        self.constructors
            .push((part, Drawn::Normal(elements(&shape))));
        let mut undrawn = None;
        let weight = self.parameter(&format!("{name}.weight"), &shape, true, || {
            let weight = Tensor::f_empty(shape, (kind, Device::Cpu))?;
            undrawn = Some(weight.shallow_clone());
            Ok(weight)
        })?;
        let undrawn = undrawn.map(|weight| Undrawn {
            part,
            weight,
            padding,
        });
        self.undrawn.extend(undrawn);
        self.embedding_elements += weight.numel();
        Ok(Embedding {
            name: name.to_owned(),
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
            name: name.to_owned(),
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
            torch::copy_of(&tensor, kind)
        }
    }

    /// Draws what is missing, after what the constructors would have drawn.
    fn draw(&mut self) -> Result<()> {
        if self.undrawn.is_empty() {
            return Ok(());
        }
        if self.initialization.is_new {
            self.draw_parts(&[Part::Encoder])?;
            return self.draw_parts(&[Part::Head]);
        }
        self.draw_parts(&[Part::Encoder, Part::Head])
    }

    fn draw_parts(&mut self, parts: &[Part]) -> Result<()> {
        let Initialization { kind, range, .. } = self.initialization;
        let constructors = self.constructors.iter();
        for (_, drawn) in constructors.filter(|(part, _)| parts.contains(part)) {
            match drawn {
                Drawn::Uniform(count) => torch::skip_uniform(*count, kind)?,
                Drawn::Normal(count) => torch::skip_normal(*count, kind)?,
            }
        }
        let undrawn = self.undrawn.iter_mut();
        for one in undrawn.filter(|one| parts.contains(&one.part)) {
            let Undrawn {
                weight, padding, ..
            } = one;
            // A leaf that is to be trained is changed in place.
            let _ = tch::no_grad(|| weight.f_normal_(0.0, range))?;
            if let Some(row) = padding {
                let _ = tch::no_grad(|| weight.f_get(*row)?.f_zero_())?;
            }
        }
        Ok(())
    }

    /// Draws what is missing, checks what is left and hands the parameters over. Wrong shapes are an error.
    pub fn finish(mut self) -> Result<Made> {
        if self.report.wrong_shapes.is_empty() {
            self.draw()?;
        }
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
        if self.initialization.is_new {
            self.report.missing.clear();
        } else if self.report.missing.len() == self.parameters.len() && !self.parameters.is_empty()
        {
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

/// Number of elements of a shape; what no memory can hold is refused where it is made.
fn elements(shape: &[i64]) -> u64 {
    let sizes = shape.iter().map(|size| size.unsigned_abs());
    sizes.fold(1, u64::saturating_mul)
}
