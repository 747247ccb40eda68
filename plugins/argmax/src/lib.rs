//! Logits processor: each floating point output with classes in its last dimension becomes the index of the largest one.
//! Metrics and predictions then keep one number instead of one per class.

use trainer_sdk::{Batch, Dtype, Error, Logits, NoConfig, Plugin, Result, Run, Setup, Tensor};

struct Argmax;

impl Plugin for Argmax {
    type Config = NoConfig;

    fn init(_: NoConfig, _: &Run<'_>, _: &Setup<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl Logits for Argmax {
    fn preprocess(&mut self, batch: &Batch<'_>) -> Result<Vec<(String, Tensor)>> {
        let mut outputs = Vec::new();
        for name in batch.outputs() {
            let output = batch
                .output(&name)?
                .ok_or_else(|| Error::data(format!("the output `{name}` is gone")))?;
            let is_float = matches!(
                output.dtype()?,
                Dtype::Float16 | Dtype::Brain16 | Dtype::Float32 | Dtype::Float64
            );
            let has_classes = output.shape()?.len() >= 2;
            let output = if is_float && has_classes {
                output.argmax(-1)?
            } else {
                output
            };
            outputs.push((name, output));
        }
        Ok(outputs)
    }
}

trainer_sdk::manifest!("../manifest.json");
trainer_sdk::export!(Argmax: logits);
