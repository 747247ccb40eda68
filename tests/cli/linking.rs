//! What the executables load.

use std::fs;

/// Names of the shared libraries that an ELF file needs, found as text: the names stand in its string table.
fn mentions(executable: &str, library: &[u8]) -> bool {
    let bytes = fs::read(executable).expect("the executable");
    bytes.windows(library.len()).any(|window| window == library)
}

#[test]
fn host_loads_no_libtorch() {
    for library in [&b"libtorch_cpu.so"[..], b"libtorch.so", b"libc10.so"] {
        assert!(
            !mentions(env!("CARGO_BIN_EXE_host"), library),
            "{}",
            String::from_utf8_lossy(library)
        );
    }
    // The test can fail: the C library is found in the same way.
    assert!(mentions(env!("CARGO_BIN_EXE_host"), b"libc.so.6"));
}
