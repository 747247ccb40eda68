//! The entry of `host-engine`: the run from the inherited file, the log, the exit code.

use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use super::{Ending, run};
use crate::cli::output;
use crate::config::run::Run;
use crate::error::{Failure, Kind};

/// Executes the run that `host` hands over with `--run-fd N`; the first word is the program's name.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    panic::set_hook(Box::new(output::panicked));
    let words: Vec<OsString> = words.into_iter().skip(1).collect();
    panic::catch_unwind(AssertUnwindSafe(|| answer(&words)))
        .unwrap_or(ExitCode::from(Kind::Internal as u8))
}

fn answer(words: &[OsString]) -> ExitCode {
    #[cfg(feature = "plugin")]
    if let Some((first, arguments)) = words.split_first()
        && first == crate::plugin::COMPILE_ARGUMENT
    {
        let compiled = crate::plugin::compile_child(arguments);
        return match compiled.and_then(|code| output::hand_over(&code)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => output::fail(&error),
        };
    }
    match execute(words) {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::Stopped(checkpoint)) => {
            output::status(&format!(
                "stopped by a signal after committing a checkpoint; go on with --resume_from_checkpoint {}",
                checkpoint.display()
            ));
            ExitCode::from(Kind::Stopped as u8)
        }
        Err(error) => output::fail(&error),
    }
}

fn execute(words: &[OsString]) -> Result<Ending> {
    let (handed, words) = match words {
        [flag, number, words @ ..] if flag == "--run-fd" => {
            (read_run(&number.to_string_lossy())?, words)
        }
        _ => {
            return Err(Failure::usage("host-engine is started by host")
                .hint("run `host train --help`")
                .into());
        }
    };
    output::log_to_stderr(&handed.logging.level);
    #[cfg(feature = "plugin")]
    if words == [crate::cli::report::FLUSH] {
        return super::flush_reports(&handed).map(|()| Ending::Done);
    }
    ensure!(words.is_empty(), "host-engine does not know {words:?}");
    run(&handed)
}

/// The file that `host` has left open for this process.
fn read_run(number: &str) -> Result<Run> {
    let number: u32 = number.parse().context("--run-fd is not a number")?;
    let path = format!("/proc/self/fd/{number}");
    let bytes = std::fs::read(&path).context("the run cannot be read")?;
    // The children of this process inherit the file; it has nothing for them.
    std::fs::write(&path, b"").context("the handed run cannot be emptied")?;
    serde_json::from_slice(&bytes).context("the run is not one of this version of host")
}
