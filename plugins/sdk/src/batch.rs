//! What a metric, a logits processor or a loss is given: the outputs, labels and inputs of a batch.

use crate::error::{Error, Result};
use crate::hooks::host::data;
use crate::tensor::Tensor;

/// One batch after the forward pass.
#[derive(Debug)]
pub struct Batch<'a>(&'a data::Batch);

impl<'a> Batch<'a> {
    /// For the exporting macros.
    #[doc(hidden)]
    pub fn new(batch: &'a data::Batch) -> Self {
        Self(batch)
    }

    /// Names of the model's outputs, without the loss.
    pub fn outputs(&self) -> Vec<String> {
        self.0.outputs()
    }

    /// An output.
    pub fn output(&self, name: &str) -> Result<Option<Tensor>> {
        Ok(self.0.output(name)?.map(Tensor::from))
    }

    /// Names of the label columns.
    pub fn labels(&self) -> Vec<String> {
        self.0.labels()
    }

    /// A label column.
    pub fn label(&self, name: &str) -> Result<Option<Tensor>> {
        Ok(self.0.label(name)?.map(Tensor::from))
    }

    /// Names of the columns of the batch.
    pub fn inputs(&self) -> Vec<String> {
        self.0.inputs()
    }

    /// A column of the batch.
    pub fn input(&self, name: &str) -> Result<Option<Tensor>> {
        Ok(self.0.input(name)?.map(Tensor::from))
    }

    /// The output `logits`, or else the first one.
    pub fn logits(&self) -> Result<Tensor> {
        if let Some(logits) = self.output("logits")? {
            return Ok(logits);
        }
        let first = self
            .outputs()
            .into_iter()
            .next()
            .ok_or_else(|| Error::data("the model has no outputs besides the loss"))?;
        self.output(&first)?
            .ok_or_else(|| Error::data("the model has no outputs besides the loss"))
    }

    /// The label column `labels`, or else the first one.
    pub fn target(&self) -> Result<Tensor> {
        if let Some(labels) = self.label("labels")? {
            return Ok(labels);
        }
        let first = self
            .labels()
            .into_iter()
            .next()
            .ok_or_else(|| Error::data("the batch has no labels"))?;
        self.label(&first)?
            .ok_or_else(|| Error::data("the batch has no labels"))
    }

    /// Name of the evaluation set; empty if there is only one.
    pub fn dataset(&self) -> String {
        self.0.dataset()
    }

    /// Number of examples.
    pub fn size(&self) -> u64 {
        self.0.size()
    }
}
