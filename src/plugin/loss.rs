//! A loss from a plugin: outputs and labels in as handles, one value out that libtorch differentiates. Nothing is copied
//! into the guest, and a batch is never computed twice: a trap ends the run.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::Result;
use tch::Tensor;
use wasmtime::component::Resource;

use super::batch;
use super::hook::Hook;
use super::instance::{Instance, absent, returned};
use crate::data::Batch;
use crate::loss::Loss;
use crate::model::Outputs;

/// The `loss` interface.
pub(super) struct Objective {
    instance: Rc<RefCell<Instance>>,
    label_names: Vec<String>,
}

impl Objective {
    /// `label_names`: the columns that are labels.
    pub(super) fn new(instance: Rc<RefCell<Instance>>, label_names: Vec<String>) -> Self {
        Self {
            instance,
            label_names,
        }
    }

    fn shown(&self, outputs: &Outputs, batch: &Batch) -> batch::Batch {
        let is_label = |name: &str| self.label_names.iter().any(|label| label == name);
        let columns = batch::share_columns(batch).into_iter();
        let (labels, inputs) = columns.partition(|(name, _)| is_label(name));
        batch::Batch {
            outputs: batch::share(&outputs.fields),
            labels,
            inputs,
            dataset: String::new(),
            size: batch.len() as u64,
        }
    }
}

impl Loss for Objective {
    fn loss(&mut self, outputs: &Outputs, batch: &Batch) -> Result<Tensor> {
        let shown = self.shown(outputs, batch);
        let mut instance = self.instance.borrow_mut();
        let loss = instance.call(Hook::ComputeLoss, |store, hooks| {
            let loss = hooks.loss.as_ref().ok_or_else(absent)?;
            let state = store.data_mut();
            state.batch = Some(shown);
            state.tensors.record();
            match loss.call_compute_loss(&mut *store, Resource::new_borrow(0))? {
                Ok(handle) => returned(store.data_mut().tensors.take_back(handle)),
                Err(error) => Ok(Err(error)),
            }
        })?;
        let refuse = |reason: String| Err(instance.refuse(Hook::ComputeLoss, reason).into());
        let (shape, kind) = (loss.size(), loss.f_kind()?);
        if loss.numel() != 1 || !loss.is_floating_point() {
            return refuse(format!(
                "returned {kind:?} of shape {shape:?}; a loss is one floating point value"
            ));
        }
        // Without gradients, as in an evaluation, the outputs have no history either.
        let fields = outputs.fields.iter();
        let is_recorded = fields.clone().any(|(_, output)| output.requires_grad());
        if is_recorded && !loss.requires_grad() {
            return refuse(
                "returned a value that does not depend on the outputs: what is read, kept or made of numbers has no history"
                    .to_owned(),
            );
        }
        let device = fields.map(|(_, output)| output.device()).next();
        if device.is_some_and(|device| device != loss.device()) {
            return refuse(format!("returned a loss on {:?}", loss.device()));
        }
        // What is not finite is the loop's to judge, as with any loss.
        Ok(loss.f_reshape([0_i64; 0])?)
    }
}
