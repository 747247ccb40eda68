//! The command line of `host`: subcommands, each a file, and the way from its words to a running engine.
//!
//! Commands parse, call one function and print. Only [`output`] writes to the terminal (I10); environment and argv are
//! read here and in `config` only (I4).

mod arguments;
mod evaluate;
pub mod output;
#[cfg(feature = "plugin")]
mod plugin;
mod predict;
#[cfg(feature = "plugin")]
pub mod report;
mod start;
mod train;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{ArgMatches, Command};

use crate::error::Failure;

/// A subcommand.
struct Subcommand {
    command: fn() -> Command,
    run: fn(&ArgMatches) -> Result<()>,
}

const SUBCOMMANDS: &[Subcommand] = &[
    Subcommand {
        command: train::command,
        run: train::run,
    },
    Subcommand {
        command: evaluate::command,
        run: evaluate::run,
    },
    Subcommand {
        command: predict::command,
        run: predict::run,
    },
    Subcommand {
        command: arguments::command,
        run: arguments::run,
    },
    #[cfg(feature = "plugin")]
    Subcommand {
        command: plugin::command,
        run: plugin::run,
    },
    #[cfg(feature = "plugin")]
    Subcommand {
        command: report::command,
        run: report::run,
    },
];

const EXAMPLES: &str = "\
Examples:
  host train --model DIR --train_file train.jsonl --validation_file valid.jsonl --output_dir out
  host train run.toml --learning_rate 3e-5 --plugin accuracy.wasm
  host evaluate --model out --validation_file valid.jsonl --output_dir out
  host train --help        all arguments
  host plugin inspect accuracy.wasm
  host plugin add oci://registry.example.org/acme/early-stop:1.3.0 --key acme.pub
  host args                all arguments of Hugging Face's Trainer, and which are refused";

/// Runs one command line; the first word is the program's name.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    match dispatch(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::fail(&error),
    }
}

fn dispatch(words: impl IntoIterator<Item = OsString>) -> Result<()> {
    let command = Command::new("host")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Trains PyTorch-format models with the loop of Hugging Face's Trainer; user code runs as sandboxed WebAssembly")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(SUBCOMMANDS.iter().map(|subcommand| (subcommand.command)()));
    let matches = match command.try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            return output::print(&error.to_string());
        }
        Err(error) => return Err(usage(&error).into()),
    };
    let called = matches.subcommand().and_then(|(name, matches)| {
        let subcommand = SUBCOMMANDS
            .iter()
            .find(|subcommand| (subcommand.command)().get_name() == name)?;
        Some((subcommand.run)(matches))
    });
    called.unwrap_or_else(|| Err(Failure::usage("no command was given").into()))
}

/// Clap's error in the form of ours.
fn usage(error: &clap::Error) -> Failure {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Failure::usage(format!("no command was given\n\n{}", text.trim_end()))
        }
        _ => Failure::usage(text.strip_prefix("error: ").unwrap_or(&text).trim_end()),
    }
}
