//! What the unit tests of this folder share.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::torch::manual_seed;

/// The default generator belongs to the process, tests to threads.
static DEFAULT_GENERATOR: Mutex<()> = Mutex::new(());

/// Runs `body` with the default generator seeded and to itself.
pub fn seeded<T>(seed: u64, body: impl FnOnce() -> T) -> T {
    let _alone = DEFAULT_GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    manual_seed(seed).expect("the generator is seeded");
    body()
}

/// A file of the recorded inputs in `tests/data`.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}
