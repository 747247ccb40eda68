//! TorchScript modules called by argument name.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use cxx::UniquePtr;
use tch::{Kind, Tensor};

use super::bridge::ffi;
use super::{addresses, adopt, scalar_type};

/// A loaded module on the CPU. Loading runs no code of the module, calling it does.
pub struct ScriptModule(UniquePtr<ffi::ScriptModule>);

/// What `forward` returned.
#[derive(Debug)]
pub struct ScriptOutput {
    /// Tensors in order; names are empty unless it was a dictionary.
    pub fields: Vec<(String, Tensor)>,
    /// Whether it was a dictionary.
    pub is_dictionary: bool,
}

impl fmt::Debug for ScriptModule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ScriptModule")
    }
}

fn named(fields: Vec<ffi::NamedTensor>) -> Vec<(String, Tensor)> {
    fields
        .into_iter()
        .map(|field| (field.name, adopt(field.address)))
        .collect()
}

impl ScriptModule {
    /// Loads a file that `torch.jit.save` wrote.
    pub fn load(path: &Path) -> Result<Self> {
        let text = path.to_str().context("the path is not valid UTF-8")?;
        Ok(Self(ffi::script_load(text)?))
    }

    /// Argument names of `forward` without `self`.
    pub fn arguments(&self) -> Result<Vec<String>> {
        Ok(ffi::script_arguments(&self.0)?)
    }

    /// Those of [`Self::arguments`] that have no default.
    pub fn required_arguments(&self) -> Result<Vec<String>> {
        Ok(ffi::script_required_arguments(&self.0)?)
    }

    /// Parameters in registration order; the tensors are the module's own.
    pub fn parameters(&self) -> Result<Vec<(String, Tensor)>> {
        Ok(named(ffi::script_parameters(&self.0)?))
    }

    /// Buffers in registration order; the tensors are the module's own.
    pub fn buffers(&self) -> Result<Vec<(String, Tensor)>> {
        Ok(named(ffi::script_buffers(&self.0)?))
    }

    /// Names of the submodules whose type is `LayerNorm`.
    pub fn layer_norms(&self) -> Result<Vec<String>> {
        Ok(ffi::script_layer_norms(&self.0)?)
    }

    /// `train()` or `eval()`.
    pub fn set_training(&mut self, training: bool) -> Result<()> {
        Ok(ffi::script_set_training(self.0.pin_mut(), training)?)
    }

    /// Converts floating point parameters and buffers.
    pub fn set_dtype(&mut self, kind: Kind) -> Result<()> {
        Ok(ffi::script_set_dtype(self.0.pin_mut(), scalar_type(kind)?)?)
    }

    /// Calls `forward` with keyword arguments.
    pub fn forward(&mut self, names: &[String], tensors: &[Tensor]) -> Result<ScriptOutput> {
        let output = ffi::script_forward(self.0.pin_mut(), names, &addresses(tensors))?;
        Ok(ScriptOutput {
            fields: named(output.fields),
            is_dictionary: output.is_dictionary,
        })
    }

    /// Writes the module with its present weights, as `torch.jit.save`.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = path.to_str().context("the path is not valid UTF-8")?;
        Ok(ffi::script_save(&self.0, text)?)
    }
}
