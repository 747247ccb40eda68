//! `host report`: what waits for reporters after a run.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, Command, value_parser};

use super::start;
use crate::checkpoint::layout;
use crate::config::run::Run;
use crate::error::Failure;

/// What the engine is told besides the run.
pub const FLUSH: &str = "--flush-reports";

pub(super) fn command() -> Command {
    let folder = Arg::new("output_dir")
        .value_name("OUTPUT_DIR")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("The output folder of the run");
    Command::new("report")
        .about("Deliver what reporters could not deliver during a run")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("flush")
                .about("Deliver the records that wait in OUTPUT_DIR/spool, with the plugins and grants of the run")
                .arg(folder),
        )
}

pub(super) fn run(matches: &ArgMatches) -> Result<()> {
    let (_, matches) = matches
        .subcommand()
        .context("clap accepted a line without a command")?;
    let folder = matches
        .get_one::<PathBuf>("output_dir")
        .context("clap accepted a line without a folder")?;
    let path = folder.join(layout::RUN);
    let subject = || {
        Failure::data(format!("{} cannot be read", path.display()))
            .hint("give the output folder of a run, which holds run.json")
    };
    let bytes = std::fs::read(&path).with_context(subject)?;
    let mut run: Run = serde_json::from_slice(&bytes).with_context(subject)?;
    // The folder may have been moved since.
    run.output_dir = std::path::absolute(folder).with_context(subject)?;
    start::become_engine(&run, &[FLUSH])
}
