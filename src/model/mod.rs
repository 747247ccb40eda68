//! Models: what the trainer needs to know of a network, the native architectures, and TorchScript modules.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use crate::data::Batch;
use crate::error::Failure;
use crate::torch;

pub mod architecture;
mod bert;
mod call;
pub mod config;
mod layers;
pub mod package;
mod parameters;
pub mod torchscript;
mod watch;
pub mod weights;

pub use architecture::{LoadOptions, Loaded, load};
pub use config::{ModelConfig, ProblemType, Task};
pub use weights::LoadReport;

/// A trainable or frozen tensor of a model.
#[derive(Debug)]
pub struct Parameter {
    /// Name in the state dict, as Hugging Face writes it.
    pub name: String,
    /// The leaf tensor; shares storage with the model.
    pub tensor: Tensor,
    /// Whether weight decay applies (spec 4.2: not a bias, not inside a LayerNorm).
    pub decay: bool,
}

/// What a forward pass returns: the loss if the model computed one itself, then named outputs in order.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Mean loss over the batch, a scalar with history. Only models that own their loss set it (TorchScript).
    pub loss: Option<Tensor>,
    /// Outputs by name (`logits`, ...), in the model's order.
    pub fields: Vec<(String, Tensor)>,
}

impl Outputs {
    /// The output `logits`, or else the first one.
    pub fn logits(&self) -> Option<&Tensor> {
        let named = self.fields.iter().find(|(name, _)| name == "logits");
        named.or(self.fields.first()).map(|(_, tensor)| tensor)
    }
}

/// What a model that is not built from layers of this program cannot do.
fn only_native(what: &str) -> anyhow::Error {
    Failure::usage(format!("{what}: the model is not a native architecture"))
        .hint("leave it out")
        .into()
}

/// A network. Parameters are leaves in libtorch's autograd graph; the optimizer changes them in place.
pub trait Model {
    /// Trainable and frozen parameters in state-dict order.
    fn parameters(&self) -> &[Parameter];
    /// Everything that is saved as weights, in state-dict order: parameters and persistent buffers.
    fn state_dict(&self) -> Vec<(String, Tensor)>;
    /// Names of the arguments of `forward`; other columns are removed (spec 2, item 4).
    fn forward_arguments(&self) -> &[String];
    /// The column whose elements count as work (spec 3.6), usually `input_ids`.
    fn main_input(&self) -> &str {
        "input_ids"
    }
    /// Columns that hold labels (spec 1.1, field 59).
    fn label_names(&self) -> Vec<String>;
    /// Outputs left out of predictions by default.
    fn keys_to_ignore_at_inference(&self) -> &[String] {
        &[]
    }
    /// Whether this is a native architecture ("library model" in the spec): FLOPs are counted, weights carry `format: pt`.
    fn is_library_model(&self) -> bool;
    /// `config.json` as it will be written beside the weights.
    fn config(&self) -> Option<serde_json::Value>;
    /// Training mode (dropout) on or off.
    fn set_training(&mut self, training: bool) -> Result<()>;
    /// Converts parameters and floating point buffers in place, as `torch.nn.Module.to(dtype)`.
    fn set_kind(&mut self, kind: Kind) -> Result<()> {
        let tensors: Vec<Tensor> = self.state_dict().into_iter().map(|(_, t)| t).collect();
        torch::set_kind(&tensors, kind)
    }
    /// Moves parameters and buffers in place, as `torch.nn.Module.to(device)`.
    fn set_device(&mut self, device: Device) -> Result<()> {
        let tensors: Vec<Tensor> = self.state_dict().into_iter().map(|(_, t)| t).collect();
        torch::move_tensors(&tensors, device)
    }
    /// Keeps no activations inside layers in training: the backward pass computes them again.
    fn recompute_activations(&mut self) -> Result<()> {
        Err(only_native("gradient_checkpointing"))
    }
    /// From now on a number that is not finite ends the pass in which it appears, with what led to it.
    fn watch_numbers(&mut self) -> Result<()> {
        Err(only_native("debug underflow_overflow"))
    }
    /// One pass. Columns the model does not know are an error of the caller.
    fn forward(&mut self, batch: &Batch) -> Result<Outputs>;
    /// Makes a faster form of the network as it is now, which evaluation passes run until [`Model::forget_compiled`]. An
    /// error says why there is none; nothing has changed then.
    fn compile_for_evaluation(&mut self) -> Result<()> {
        // A trace records tensor operations. Here the sizes of a batch pass through Rust as numbers, so it would hold them
        // as constants and be wrong for every batch of another shape.
        anyhow::bail!(
            "a native model cannot be traced: the sizes of its batches are numbers of this program, not of the trace"
        )
    }
    /// Goes back to the network itself.
    fn forget_compiled(&mut self) {}
    /// Floating point operations of forward and backward for a batch: `6 * elements of the main input * non-embedding
    /// parameters` for library models, else 0.
    fn floating_point_operations(&self, batch: &Batch) -> f64;
}
