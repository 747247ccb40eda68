//! `host`: reads the command line and hands a resolved run to `host-engine`. Links no libtorch.
//!
//! The modules are compiled into this executable instead of linking the library: a library that mentions libtorch anywhere
//! pulls it into every executable that links it.

use std::process::ExitCode;

/// Only the names of files: no tensors here.
#[allow(dead_code, reason = "the library uses what this executable does not")]
mod checkpoint {
    pub mod layout;
}
#[allow(dead_code, reason = "the library uses what this executable does not")]
mod cli;
#[allow(dead_code, reason = "the library uses what this executable does not")]
mod config;
#[allow(dead_code, reason = "the library uses what this executable does not")]
mod error;
/// Only what looks at a plugin without running it.
#[cfg(feature = "plugin")]
#[allow(dead_code, reason = "the library uses what this executable does not")]
mod plugin {
    pub mod capability;
    mod hook;
    pub mod inspect;
    mod limits;
    mod manifest;
    mod origin;
    pub mod outline;
    pub mod requests;
    mod text;
}
#[allow(dead_code, reason = "the library uses what this executable does not")]
mod registry;

fn main() -> ExitCode {
    cli::run(std::env::args_os())
}
