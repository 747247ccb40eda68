//! What the unit tests of this folder share.

use std::path::PathBuf;

/// A recorded input in `tests/data`.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}
