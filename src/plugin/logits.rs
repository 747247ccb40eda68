//! Logits processors from plugins: outputs in, the outputs that replace them out, as handles all the way.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::Result;
use tch::Tensor;
use wasmtime::component::Resource;

use super::batch::Batch;
use super::context::check_name;
use super::hook::Hook;
use super::instance::{Instance, absent, taken_back};
use crate::metric::{EvaluationBatch, LogitsProcessor};

/// The `logits` interface.
pub(super) struct Processor {
    name: String,
    instance: Rc<RefCell<Instance>>,
}

impl Processor {
    pub(super) fn new(instance: Rc<RefCell<Instance>>) -> Self {
        let name = instance.borrow().name().to_owned();
        Self { name, instance }
    }

    fn once(&self, batch: &EvaluationBatch<'_>) -> Result<Vec<(String, Tensor)>> {
        self.instance
            .borrow_mut()
            .call(Hook::Preprocess, |store, hooks| {
                let logits = hooks.logits.as_ref().ok_or_else(absent)?;
                store.data_mut().batch = Some(Batch::of(batch));
                let named = match logits.call_preprocess(&mut *store, Resource::new_borrow(0))? {
                    Ok(named) => named,
                    Err(error) => return Ok(Err(error)),
                };
                taken_back(&mut store.data_mut().tensors, named)
            })
    }
}

impl LogitsProcessor for Processor {
    fn name(&self) -> &str {
        &self.name
    }

    fn preprocess(&mut self, batch: &EvaluationBatch<'_>) -> Result<Vec<(String, Tensor)>> {
        let generation = self.instance.borrow().generation();
        let mut outcome = self.once(batch);
        // A processor has no state that a trap could have lost, so a fresh store may try the same batch again.
        let mut instance = self.instance.borrow_mut();
        if outcome.is_err() && instance.can_restart() && instance.generation() == generation {
            drop(instance);
            outcome = self.once(batch);
            instance = self.instance.borrow_mut();
        }
        let outputs = outcome?;
        for (name, _) in &outputs {
            check_name(name).map_err(|reason| instance.refuse(Hook::Preprocess, reason))?;
        }
        let rows = batch.size as i64;
        if let Some((name, tensor)) = outputs
            .iter()
            .find(|(_, tensor)| tensor.size().first() != Some(&rows))
        {
            let reason = format!(
                "returned `{name}` of shape {:?} for {rows} examples",
                tensor.size()
            );
            return Err(instance.refuse(Hook::Preprocess, reason).into());
        }
        Ok(outputs)
    }
}
