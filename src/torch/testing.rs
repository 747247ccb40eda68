//! What unit tests of the whole crate share: the default generator belongs to the process, tests to threads.

use super::{exclusive, manual_seed};

/// Runs `body` with the default generator seeded and to itself. Every test that draws from it runs inside this, or holds
/// [`exclusive`].
pub fn seeded<T>(seed: u64, body: impl FnOnce() -> T) -> T {
    let _alone = exclusive();
    manual_seed(seed).expect("the generator is seeded");
    body()
}
