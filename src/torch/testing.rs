//! What unit tests of the whole crate share: the default generator belongs to the process, tests to threads.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::manual_seed;

static DEFAULT_GENERATOR: Mutex<()> = Mutex::new(());

/// The turn of a test that seeds or draws from the default generator.
pub fn exclusive() -> MutexGuard<'static, ()> {
    DEFAULT_GENERATOR
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Runs `body` with the default generator seeded and to itself.
pub fn seeded<T>(seed: u64, body: impl FnOnce() -> T) -> T {
    let _alone = exclusive();
    manual_seed(seed).expect("the generator is seeded");
    body()
}
