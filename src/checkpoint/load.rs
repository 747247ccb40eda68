//! STAND-IN until the branch `checkpoint` lands: reads model.safetensors with tch's reader.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tch::Tensor;

/// Named tensors and where they came from.
#[derive(Debug)]
pub struct Weights {
    /// In file order.
    pub tensors: Vec<(String, Tensor)>,
    /// The file.
    pub source: PathBuf,
}

/// Reads the weights of a folder.
pub fn read_weights(dir: &Path) -> Result<Weights> {
    let source = dir.join(super::layout::WEIGHTS);
    Ok(Weights { tensors: Tensor::read_safetensors(&source)?, source })
}
