//! The instances of a plugin that work on the loader's threads: one for each worker of each loader, started when the worker
//! needs it and kept for its next epoch. Instances are moved between threads, never shared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use super::instance::{Instance, Linked};
use super::usage::Tally;

/// A loader and its worker.
pub(super) type Seat = (usize, usize);

/// Instances that wait for their workers.
pub(super) struct Pool {
    linked: Arc<Linked>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    instances: HashMap<Seat, Instance>,
    loaders: usize,
}

impl Pool {
    pub(super) fn new(linked: Arc<Linked>) -> Self {
        Self {
            linked,
            waiting: Mutex::default(),
        }
    }

    /// A number for one more loader.
    pub(super) fn add_loader(&self) -> usize {
        let mut waiting = self.lock();
        waiting.loaders += 1;
        waiting.loaders
    }

    /// The instance of a seat; nobody else has it until it is [`Self::put`] back.
    pub(super) fn take(&self, seat: Seat) -> Result<Instance> {
        let waiting = self.lock().instances.remove(&seat);
        match waiting {
            Some(instance) => Ok(instance),
            None => Instance::start(self.linked.clone()),
        }
    }

    pub(super) fn put(&self, seat: Seat, instance: Instance) {
        self.lock().instances.insert(seat, instance);
    }

    /// What all of them have cost; those at work are left out.
    pub(super) fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for instance in self.lock().instances.values() {
            sum.add(&instance.tally());
        }
        sum
    }

    /// Ends all of them.
    pub(super) fn close(&self) -> Result<()> {
        let mut waiting = self.lock();
        let mut instances = waiting.instances.values_mut();
        instances.try_for_each(Instance::close)
    }

    /// A worker that panicked had its instance with it; the others are whole.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
