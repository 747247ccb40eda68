//! `host`: the Hugging Face `Trainer` loop on libtorch, with user code as sandboxed WebAssembly components.

pub mod callback;
pub mod checkpoint;
pub mod config;
pub mod data;
pub mod error;
pub mod loss;
pub mod metric;
pub mod model;
pub mod optim;
#[cfg(feature = "plugin")]
pub mod plugin;
pub mod report;
pub mod torch;
