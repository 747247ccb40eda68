//! `host`: reads the command line and hands a resolved run to `host-engine`. Links no libtorch.

use std::process::ExitCode;

fn main() -> ExitCode {
    host::cli::run(std::env::args_os())
}
