//! `host-engine`: executes a resolved run. The only executable that loads libtorch; `host` starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    host::wire::entry::main(std::env::args_os())
}
