//! What unit tests of the whole crate share: the default generator belongs to the process, tests to threads.

use std::sync::{Mutex, PoisonError};

use super::manual_seed;

static DEFAULT_GENERATOR: Mutex<()> = Mutex::new(());

/// Runs `body` with the default generator seeded and to itself. Every test that draws from it runs inside this.
pub fn seeded<T>(seed: u64, body: impl FnOnce() -> T) -> T {
    let _alone = DEFAULT_GENERATOR
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    manual_seed(seed).expect("the generator is seeded");
    body()
}
