//! TorchScript modules called by argument name.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use cxx::UniquePtr;
use tch::{Device, Kind, Tensor};

use super::bridge::ffi;
use super::{addresses, adopt, devices, scalar_type};
use crate::error::without_frames;

/// A loaded module. Loading runs no code of the module, calling it does.
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

/// What went wrong and where in the module's code. libtorch tells it after the stack of calls, with the code around each.
fn in_short(text: &str) -> String {
    let lines: Vec<&str> = without_frames(text).lines().collect();
    let is_text = |line: &&&str| !line.trim().is_empty();
    let after_stack = lines
        .iter()
        .rposition(|line| line.ends_with("<--- HERE"))
        .and_then(|last| {
            lines[last..]
                .iter()
                .skip(1)
                .filter(is_text)
                .find(|line| !line.starts_with(' '))
        });
    let message = after_stack
        .or_else(|| lines.iter().find(is_text))
        .map_or("", |line| line.trim().trim_end_matches(':'));
    // What follows guesses at causes.
    let message = message
        .split(". This is an internal miniz error")
        .next()
        .unwrap_or(message);
    let place = lines
        .iter()
        .rfind(|line| line.trim_start().starts_with("File \""));
    match place {
        Some(place) => format!("{message} ({})", place.trim()),
        None => message.to_owned(),
    }
}

fn explained(error: &cxx::Exception) -> anyhow::Error {
    anyhow!(in_short(error.what()))
}

/// While it lives, oneDNN Graph fuses operations of modules that are optimised on the CPU. It is for modules without
/// gradients: what is fused has none.
#[derive(Debug)]
pub struct Fusion(());

impl Fusion {
    /// `torch.jit.enable_onednn_fusion(True)`.
    pub fn enable() -> Result<Self> {
        ffi::script_fuse_on_cpu(true)?;
        Ok(Self(()))
    }
}

impl Drop for Fusion {
    fn drop(&mut self) {
        // Disabling what was enabled cannot fail.
        let _ = ffi::script_fuse_on_cpu(false);
    }
}

/// Groups of operations that are one in the code that this thread has run last; 0 while a module is still being watched.
pub fn fused_groups() -> Result<usize> {
    Ok(ffi::script_fused_groups()?)
}

impl ScriptModule {
    /// Loads a file that `torch.jit.save` wrote; its parameters, buffers and constants go to `device`.
    pub fn load(path: &Path, device: Device) -> Result<Self> {
        let text = path.to_str().context("the path is not valid UTF-8")?;
        let index = devices::index_of(device)?;
        Ok(Self(
            ffi::script_load(text, index).map_err(|error| explained(&error))?,
        ))
    }

    /// Argument names of `forward` without `self`.
    pub fn arguments(&self) -> Result<Vec<String>> {
        ffi::script_arguments(&self.0).map_err(|error| explained(&error))
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
        let output = ffi::script_forward(self.0.pin_mut(), names, &addresses(tensors))
            .map_err(|error| explained(&error))?;
        Ok(ScriptOutput {
            fields: named(output.fields),
            is_dictionary: output.is_dictionary,
        })
    }

    /// A copy for evaluation, whose present weights are constants, with what follows from them computed in advance.
    pub fn freeze(&self) -> Result<Self> {
        let frozen = ffi::script_freeze(&self.0).map_err(|error| explained(&error))?;
        Ok(Self(frozen))
    }

    /// Writes the module with its present weights, as `torch.jit.save`.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = path.to_str().context("the path is not valid UTF-8")?;
        Ok(ffi::script_save(&self.0, text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::in_short;

    #[test]
    fn the_message_and_the_place_are_kept() {
        let interpreter = "The following operation failed in the TorchScript interpreter.\n\
            Traceback of TorchScript, serialized code (most recent call last):\n  File \"code/__torch__.py\", line 3, in forward\n    \
            y = f(x)\n        ~ <--- HERE\n    return y\n\nTraceback of TorchScript, original code (most recent call last):\n  \
            File \"a.py\", line 9, in forward\n    f(x)\n    ~ <--- HERE\nRuntimeError: sizes differ\nmore\n";
        let archive = "PytorchStreamReader failed reading zip archive: not a ZIP archive. This is an internal miniz error. If \
            you are seeing this\nException raised from valid at x.cc:1 (most recent call first):\nframe #0: f";
        let syntax = "\nexpected ) but found 'x' here:\n  File \"code/__torch__.py\", line 2\n  def f(x -> y\n           ~~ <--- HERE\n";
        for (text, expected) in [
            (
                interpreter,
                "RuntimeError: sizes differ (File \"a.py\", line 9, in forward)",
            ),
            (
                archive,
                "PytorchStreamReader failed reading zip archive: not a ZIP archive",
            ),
            (
                syntax,
                "expected ) but found 'x' here (File \"code/__torch__.py\", line 2)",
            ),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(in_short(text), expected);
        }
    }
}
