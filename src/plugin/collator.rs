//! Collators from plugins, on the threads of the loader. What is random in a batch follows from the run and the place of
//! the batch, never from the number of workers.

use std::sync::Arc;

use anyhow::Result;
use tch::Tensor;
use wasmtime::component::Resource;

use super::bindings::trainer::host::types::ErrorKind;
use super::context::check_named;
use super::features::Features;
use super::hook::Hook;
use super::instance::{Instance, absent, taken_back};
use super::pool::Pool;
use super::rng;
use crate::data::collator::BadExample;
use crate::data::{Batch, Collator, Example, Place};
use crate::torch::Generator;

/// The `collator` interface for one loader.
pub(super) struct Collating {
    pool: Arc<Pool>,
    loader: usize,
    is_training: bool,
}

/// The columns of a batch, or the row that was refused.
struct Outcome {
    columns: Result<Vec<(String, Tensor)>>,
    refused: Option<BadExample>,
}

impl Collating {
    pub(super) fn new(pool: Arc<Pool>, is_training: bool) -> Self {
        let loader = pool.add_loader();
        Self {
            pool,
            loader,
            is_training,
        }
    }

    fn once(&self, instance: &mut Instance, place: Place, examples: &[Example]) -> Outcome {
        let mut refused = None;
        let columns = instance.call(Hook::Collate, |store, hooks| {
            let collator = hooks.collator.as_ref().ok_or_else(absent)?;
            let state = store.data_mut();
            state.features = Some(Features::of(examples, self.is_training));
            let stream = rng::Handle::of_batch(&state.facts.random_key, place);
            let stream = state.wasi.table.push(stream)?;
            let lent = Resource::new_borrow(stream.rep());
            let returned = collator.call_collate(&mut *store, Resource::new_borrow(0), lent)?;
            let state = store.data_mut();
            state.wasi.table.delete(stream)?;
            match returned {
                Ok(named) => taken_back(&mut state.tensors, named),
                Err(error) => {
                    let features = state.features.take();
                    refused = features
                        .and_then(|features| features.refused)
                        .filter(|refused| {
                            error.kind == ErrorKind::Data
                                && error.message.contains(&refused.message)
                        });
                    Ok(Err(error))
                }
            }
        });
        Outcome { columns, refused }
    }

    /// Names that can be shown, and one number of examples in all columns.
    fn check(&self, instance: &Instance, columns: &[(String, Tensor)], rows: usize) -> Result<()> {
        let refuse = |reason: String| Err(instance.refuse(Hook::Collate, reason).into());
        let Some((_, first)) = columns.first() else {
            return refuse("returned no column".to_owned());
        };
        let count = first.size().first().copied().unwrap_or(0);
        for (index, (name, tensor)) in columns.iter().enumerate() {
            if let Err(reason) = check_named("column", name) {
                return refuse(reason);
            }
            if columns[..index].iter().any(|(other, _)| other == name) {
                return refuse(format!("returned the column `{name}` twice"));
            }
            let size = tensor.size();
            let extent = size.first().copied().unwrap_or(0);
            if extent == 0 {
                return refuse(format!(
                    "returned `{name}` of shape {size:?}: the first dimension is that of the examples"
                ));
            }
            if extent != count {
                let (other, shape) = (&columns[0].0, first.size());
                return refuse(format!(
                    "returned `{other}` of shape {shape:?} and `{name}` of shape {size:?}: they have different numbers of examples"
                ));
            }
            // What is evaluated is counted and written down row by row.
            if !self.is_training && extent != rows as i64 {
                return refuse(format!(
                    "returned `{name}` of shape {size:?} for {rows} rows that are evaluated"
                ));
            }
        }
        Ok(())
    }
}

impl Collator for Collating {
    fn collate(&self, examples: &[Example], draws: &mut Generator) -> Result<Batch> {
        self.collate_at(Place::default(), examples, draws)
    }

    fn collate_at(
        &self,
        place: Place,
        examples: &[Example],
        _draws: &mut Generator,
    ) -> Result<Batch> {
        let seat = (self.loader, place.worker);
        let mut instance = self.pool.take(seat)?;
        let mut outcome = self.once(&mut instance, place, examples);
        // A batch follows from its rows and its place alone, so a fresh store may make it again.
        while outcome.columns.is_err() && instance.can_restart() {
            outcome = self.once(&mut instance, place, examples);
        }
        let checked = outcome.columns.and_then(|columns| {
            self.check(&instance, &columns, examples.len())?;
            Ok(columns)
        });
        self.pool.put(seat, instance);
        let columns = match (checked, outcome.refused) {
            (Ok(columns), _) => columns,
            (Err(error), Some(BadExample { position, .. })) => {
                let message = format!("{error:#}");
                return Err(BadExample { position, message }.into());
            }
            (Err(error), None) => return Err(error),
        };
        let named = columns.into_iter();
        Ok(Batch {
            columns: named.map(|(name, tensor)| (name.into(), tensor)).collect(),
        })
    }
}
