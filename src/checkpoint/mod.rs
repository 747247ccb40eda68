//! Checkpoints: named tensors and JSON into a folder that is complete or absent.
//!
//! Mechanism only: it knows tensors and [`Stateful`], no models and no optimizers. Every file name of a run is in
//! [`layout`]; each save is written aside, synced and renamed (I9). The order of operations is at the top of [`save`].

use anyhow::Result;
use tch::Tensor;

mod archive;
mod bytes;
mod file;
pub mod find;
pub mod foreign;
mod graph;
mod header;
pub mod json;
pub mod layout;
pub mod load;
pub mod lock;
mod machine;
pub mod manifest;
mod opcode;
pub mod pickle;
pub mod rng;
pub mod rotate;
pub mod save;
pub mod space;
mod weights;

/// What one part of a run needs to go on exactly where it stopped.
#[derive(Debug, Default)]
pub struct PartState {
    /// Named tensors, on any device; saved from and loaded to the CPU.
    pub tensors: Vec<(String, Tensor)>,
    /// Everything else.
    pub json: serde_json::Value,
}

/// A part whose state goes into checkpoints.
pub trait Stateful {
    /// The state now. Tensors may share storage with the part: they are written before the next step.
    fn state(&self) -> Result<PartState>;
    /// Continues from `state`. An error names what does not fit; the part is unchanged then.
    fn load_state(&mut self, state: PartState) -> Result<()>;
}
